%% @doc Rate limiter: one native table, one atomic compare-and-swap a hit, memory that never grows. It never admits more than the
%% sequential algorithm would, however many processes hit the same key.
%%
%% ```
%% 1> foundation_limiter:start_link(api, #{algorithm => gcra, limit => 100, period => 1000, burst => 20}).
%% {ok,<0.90.0>}
%% 2> foundation_limiter:hit(api, {user, 42}).
%% {allow,19}
%% '''
%%
%% A limiter is known by its name (an atom) or by the handle of {@link whereis/1}; both cost the same. A <em>key</em> is any term;
%% keys that are `=:=' have one budget, `1' and `1.0' have two. The period belongs to the key: the same key under two periods has two
%% budgets.
%%
%% == Algorithms ==
%% `gcra' (the default) spreads the limit evenly over the period and admits up to `burst' at once; `fixed_window' opens a window with
%% the first hit of a key and closes it `period' milliseconds later; `sliding_window' is the weighted two-window counter: windows lie
%% at multiples of `period', and a hit is admitted while the units of this window, and those of the one before weighted with what is
%% left of this one, stay within the limit.
%%
%% == Ranges ==
%% Outside them, calls raise `error:{badarg, {Argument, Reason}}'; {@link start_link/2} answers `{error, {badarg, {Option, Reason}}}'.
%% <table>
%% <tr><td></td><td>`gcra'</td><td>`fixed_window'</td><td>`sliding_window'</td></tr>
%% <tr><td>period, ms</td><td>1..31622400000 (366 days)</td><td>the same</td><td>the same</td></tr>
%% <tr><td>limit</td><td>0..period in ns</td><td>0..16777214</td><td>0..2^C - 1, see below</td></tr>
%% <tr><td>burst</td><td>1 .. what comes back within 4.5 years</td><td>(has none)</td><td>(has none)</td></tr>
%% <tr><td>cost</td><td>0..burst</td><td>0..limit</td><td>0..limit</td></tr>
%% <tr><td>capacity</td><td>1..2147483648</td><td>the same</td><td>the same</td></tr>
%% </table>
%% `sliding_window': C = (20 + min(31, floor(log2(period)))) div 2, so the limit is up to 1023 at 1 ms, 16383 at 1 s, 131071 at 1 min,
%% 1048575 at 1 h, 8388607 at 1 day and 33554431 from 25 days on. Its time stands still 8.7 years after the table was made.
%%
%% Limit 0 denies every hit, of any cost; the retry time is then the period, though the limiter will deny again. A call that brings its
%% own limit has burst = limit. Cost 0 answers like {@link peek/2}. The rate of `gcra' is rounded down, by less than 6.25 % near one
%% unit a nanosecond and less than a millionth up to 10000 units a second.
%%
%% == Full table ==
%% The table has twice as many slots as `capacity', and a key that is at rest (its whole budget is back) needs none. Should a new key
%% nevertheless find no slot, `on_full' says what happens: `evict' (the default) forgets the entry with the least consumed budget among
%% eight, so that a flood of new keys cannot evict a busy one; `deny' denies the new key until a slot is free; `allow' lets it pass
%% uncounted. `evict', `allow' and {@link reset/2} are the only ways in which a limiter admits more than its limit; `full' and `evicted'
%% of {@link info/1} count the first two.
%%
%% == Clocks ==
%% `precise' is the monotonic clock; `coarse' is its cheaper form, which moves in ticks (4 ms on common kernels: a window may seem that
%% much shorter, and retry times are that much longer); `auto' (the default) is coarse where a full budget takes at least 250 ticks to
%% come back; `manual' stands still until {@link advance/2} moves it, for tests that need no sleep.
%%
%% == Budgets that survive the VM ==
%% With `persist => Path' the table lives in that file (made where there is none, mode 0600, with its folder where only that is
%% missing). What {@link hit/2} answered is in it when the answer is given: budgets survive a restart, a crash and `kill -9' of the VM,
%% and go on where they were, the time in between counted. After a loss of power they may be older, by what the kernel had not written
%% back yet (30 s by default on Linux). After a reboot time goes on by the wall clock: where that was set forward meanwhile, budgets
%% come back early, where it was set back, late.
%%
%% One VM at a time has the file, and one limiter in it; a second one is refused with `{error, {locked, OsPid}}'. `limit', `period',
%% `burst', `on_full' and `clock' may be others than before; `{error, {file, {differs, algorithm | capacity}}}' says that the file was
%% made for something else. Whatever else is not in order is `{error, {file, Reason}}', and the file is left as it is: `foreign_file',
%% `corrupt', `unsupported_version' (of a later release, or the other byte order), `wrong_owner', `unsafe_mode' (others may write it),
%% `eloop' (a symbolic link), `enospc', `eacces' and their like. An empty file counts as none.
%%
%% Atoms in keys count by their names. Pids, ports, references and funs mean something to one VM only: their budgets are fresh in the
%% next. `0.0' and `-0.0' are one key, whatever the VM says. {@link info/1} has `persist' (the path), `disk_bytes' and `faulted': a part
%% of the file was cut off or overwritten while it was in use; then `on_full' answers for keys that are not found (`deny' denies,
%% `allow' allows, `evict' begins anew), and the limiter wants a restart with a sound file. The file system must be a local one
%% (`flock').
%%
%% == Limits that nodes share ==
%% With `scope => cluster' or `cluster_strict' all connected nodes that start the limiter under this name share its budgets; the
%% application `foundation_native' must run (`{badarg, {scope, application_not_started}}' otherwise). Each key is kept by one of them,
%% chosen by rendezvous hashing over the members of a `pg' group ({@link info/1}: `members'). Keys are hashed as terms, so any term will
%% do, also one that names a process or a fun of some node.
%%
%% `cluster_strict' asks the keeper at each hit: one message there and one back, none where the caller's node is the keeper. `cluster'
%% lends: a node whose callers come back to a key within a second gets up to 1/(4 x members) of what the key has left, debited by the
%% keeper before it is granted, and its hits then cost little more than those of a local limiter. That a key has no budget is remembered
%% in the same way. A lease that is not used up ends with its window (`gcra': after the time in which its units come back) and is lost:
%% a key that several nodes hit may be denied up to that much early. `{allow, Remaining}' tells what is surely left, which after a
%% leased hit is what is left of the lease.
%%
%% The keeper applies the options of its own node. Where nodes differ in algorithm, limit, period or burst, as in the middle of a
%% deployment, each logs a warning.
%%
%% How much may be admitted: per key and period, at most the limit for each node that keeps the key in that time and is lost, be it by
%% turns or, as the sides of a net split do, at once. So while no member is lost: the limit, exactly, also when members come, since they
%% take their keys over with what these have consumed. A keeper that dies or leaves costs one limit more, for its keys and the current
%% period, and so does each further side of a split; members that come in the same moment may cost one, too, for keys that change hands
%% between them. Leases add nothing to that, but to `gcra': there as many units as the largest lease may be admitted on top, at once,
%% which is at most burst/(4 x members). All of it goes by monotonic clocks; those of two nodes may differ by 0.4 % in speed.
%%
%% A keeper that does not answer within `cluster_timeout' (1000 ms) is a denial, whose retry time is `cluster_timeout', and it is not
%% asked again for as long; calls that give no decision answer `{error, unreachable}'. `info/1' counts both (`unreachable'). A caller
%% gets no message late. {@link reset/2} and {@link set/4} reach all members that are connected; one that does not answer goes on with
%% what it has leased, or knows to be denied, until that ends. {@link reserve/4} and {@link hit_all/1} are for limiters of local scope.
%%
%% == Telemetry ==
%% With `telemetry => true' each denied hit executes the event `[foundation_native, limiter, deny]' of the `telemetry' package, where
%% that is loaded, in the process that hit: measurements `#{count => 1, retry_after => Ms}', metadata `#{limiter => Name, key => Key,
%% cost => Cost, limit => preset | {PeriodMs, Limit}}'. What only asks ({@link peek/2}, cost 0) is not told. Admitted hits cost the same
%% with and without; {@link info/1} counts both kinds in any case.
-module(foundation_limiter).

-export([start_link/2, child_spec/1, delete/1]).
-export([hit/2, hit/3, hit/4, hit/5, peek/2, peek/4, hit_all/1, reserve/4, refund/1, reset/2, reset/3]).
-export([get/2, get/3, inc/3, inc/4, set/4, info/1, whereis/1, advance/2]).
-export([attach_nif/3, look_after_nif/1, remove_nif/2, home/1]).
-export([hit_nif/2, hit_nif/3, hit_nif/4, hit_nif/5, peek_nif/2, peek_nif/4, hit_all_nif/1, reserve_nif/4, reset_nif/2, reset_nif/3]).
-export([get_nif/2, get_nif/3, inc_nif/3, inc_nif/4, set_nif/4, info_nif/1]).
-export([lend_nif/5, lease_nif/6, forget_nif/3, lease_now_nif/1, reopen_nif/1]).
-export_type([name/0, handle/0, limiter/0, key/0, options/0, answer/0, unanswered/0, option_error/0, file_error/0, token/0]).

-nifs([
    hit_nif/2, hit_nif/3, hit_nif/4, hit_nif/5, peek_nif/2, peek_nif/4, hit_all_nif/1, reserve_nif/4, refund/1,
    reset_nif/2, reset_nif/3, get_nif/2, get_nif/3, inc_nif/3, inc_nif/4, set_nif/4,
    lend_nif/5, lease_nif/6, forget_nif/3, lease_now_nif/1, reopen_nif/1,
    info_nif/1, whereis/1, advance/2, attach_nif/3, look_after_nif/1, remove_nif/2
]).
-on_load(load/0).

-type name() :: atom().
-type handle() :: integer().
%% Opaque. Finds exactly the limiter it was asked of, and nothing once that is deleted.
-type limiter() :: name() | handle().
-type key() :: term().
-type answer() :: {allow, Remaining :: non_neg_integer()} | {deny, RetryAfterMs :: non_neg_integer()}.
-type unanswered() :: {error, unreachable}.
%% Only of a limiter that nodes share.
-opaque token() :: reference().
%% What a reservation is given back by, in any process of this VM.
-type options() :: #{
    algorithm => gcra | fixed_window | sliding_window,
    limit => non_neg_integer(),
    period => pos_integer(),
    burst => pos_integer(),
    capacity => pos_integer(),
    on_full => evict | deny | allow,
    clock => auto | precise | coarse | manual,
    scope => local | cluster | cluster_strict,
    cluster_timeout => pos_integer(),
    telemetry => boolean(),
    persist => undefined | file:name_all()
}.
-type option_error() :: {badarg, {Option :: term(), Reason :: atom()}}.
-type file_error() ::
    {locked, OsPid :: non_neg_integer()} | {file, {differs, algorithm | capacity} | Reason :: atom()}.

load() ->
    foundation_nif:loaded(?MODULE, erlang:load_nif(foundation_nif:library(?MODULE), ?MODULE)).

%% @doc Start the owner of a limiter, linked to the caller.
%%
%% Options and defaults: `algorithm' (`gcra'), `limit' and `period' in ms (both, or neither: then every hit brings its own), `burst'
%% (the limit; `gcra' only), `capacity' (100000 keys), `on_full' (`evict'), `clock' (`auto'), `scope' (`local'), `cluster_timeout' in ms
%% (1000; 1..60000, not with local scope), `telemetry' (`false'), `persist' (`undefined': in memory). An option that is unknown is an
%% error, never ignored. The name of a limiter that nodes share has at most 236 characters (`{badarg, {name, too_long}}').
%%
%% The table outlives a crash of its owner: hits go on meanwhile, and the next `start_link' of the name takes the living table over,
%% with all its budgets; its options must be the same (`{error, {badarg, {Option, differs_from_living_table}}}' otherwise; {@link
%% delete/1} first). An orderly stop of the owner (`normal', `shutdown') deletes the table; where it has a file, that is closed and
%% stays.
%%
%% Errors besides `badarg': `{already_started, Pid}' while the name has a living owner, `enomem', `too_many_limiters' (8192 at once);
%% with `persist' also `{locked, OsPid}' and `{file, Reason}', see above. The caller gets no exit signal with them.
-spec start_link(name(), options()) ->
    {ok, pid()} | {error, option_error() | file_error() | {already_started, pid()} | enomem | too_many_limiters}.
start_link(Name, Options) ->
    foundation_limiter_owner:start_link(Name, Options).

%% @doc For a supervisor. It restarts the owner after a crash, not after {@link delete/1}.
-spec child_spec({name(), options()}) -> supervisor:child_spec().
child_spec({Name, Options}) ->
    #{
        id => {?MODULE, Name},
        start => {?MODULE, start_link, [Name, Options]},
        restart => transient,
        modules => [foundation_limiter_owner]
    }.

%% @doc Delete the limiter, with its file where it has one, and stop its owner. Hits that are under way in other processes end first, as
%% hits of the living limiter; later ones raise `{badarg, {limiter, unknown}}' or, by handle, `{limiter, deleted}'. The name is free
%% when this returns.
-spec delete(limiter()) -> ok.
delete(Limiter) ->
    {ok, Owner} = remove_nif(Limiter, true),
    foundation_limiter_owner:deleted(Owner).

%% @doc One hit of cost 1 against the preset limit.
%%
%% `{allow, Remaining}': admitted, and that many units remain now. `{deny, RetryAfterMs}': denied, nothing was consumed; the same hit is
%% admitted after that many milliseconds, if nobody else takes the budget. Constant time; see `doc/SAFETY.md' for large keys.
-spec hit(limiter(), key()) -> answer().
hit(Limiter, Key) ->
    case hit_nif(Limiter, Key) of
        [_ | _] = More -> more(More, {hit, Key, preset, 1});
        Answer -> Answer
    end.

%% @doc A hit of the given cost: all of it is admitted, or nothing. Cost 0 takes nothing and answers like {@link peek/2}.
-spec hit(limiter(), key(), Cost :: non_neg_integer()) -> answer().
hit(Limiter, Key, Cost) ->
    case hit_nif(Limiter, Key, Cost) of
        [_ | _] = More -> more(More, {hit, Key, preset, Cost});
        Answer -> Answer
    end.

%% @doc One hit of cost 1 against the limit given here. The preset limit under the same period has the same budget.
-spec hit(limiter(), key(), PeriodMs :: pos_integer(), Limit :: non_neg_integer()) -> answer().
hit(Limiter, Key, PeriodMs, Limit) ->
    case hit_nif(Limiter, Key, PeriodMs, Limit) of
        [_ | _] = More -> more(More, {hit, Key, {PeriodMs, Limit}, 1});
        Answer -> Answer
    end.

%% @doc As {@link hit/4}, with a cost.
-spec hit(limiter(), key(), PeriodMs :: pos_integer(), Limit :: non_neg_integer(), Cost :: non_neg_integer()) -> answer().
hit(Limiter, Key, PeriodMs, Limit, Cost) ->
    case hit_nif(Limiter, Key, PeriodMs, Limit, Cost) of
        [_ | _] = More -> more(More, {hit, Key, {PeriodMs, Limit}, Cost});
        Answer -> Answer
    end.

%% @doc What the key has left: `{allow, Remaining}' where a hit of cost 1 would be admitted, with what remains before it, else
%% `{deny, RetryAfterMs}'. Changes nothing.
-spec peek(limiter(), key()) -> answer().
peek(Limiter, Key) ->
    case peek_nif(Limiter, Key) of
        [_ | _] = More -> more(More, {peek, Key, preset});
        Answer -> Answer
    end.

%% @doc As {@link peek/2}, for the limit given here.
-spec peek(limiter(), key(), PeriodMs :: pos_integer(), Limit :: non_neg_integer()) -> answer().
peek(Limiter, Key, PeriodMs, Limit) ->
    case peek_nif(Limiter, Key, PeriodMs, Limit) of
        [_ | _] = More -> more(More, {peek, Key, {PeriodMs, Limit}});
        Answer -> Answer
    end.

%% @doc Hit several keys, of one limiter or of many, against their preset limits: all are admitted, or none is debited.
%%
%% `{allow, [Remaining]}', in the order of the entries; `{deny, Index, RetryAfterMs}': the entry at that place, counted from 1, is
%% denied. The debits before it are given back then, each to the budget that it came from; meanwhile other hits may be denied what is
%% given back, and none is admitted that should not be. (A debit whose window ended meanwhile has nothing left to give back.) A key may
%% stand there several times. Cost 0 asks, like {@link peek/2}. Every entry is checked before the first debit: what is wrong raises
%% `{badarg, {{entry, Index}, not_an_entry | {Argument, Reason}}}', with the words that {@link hit/3} has; a limiter that is deleted
%% during the call raises `{limiter, deleted}' so, and the debits are given back. Limiters of another scope than `local' are refused
%% (`{limiter, not_local}'): leases of other nodes cannot be given back exactly.
%%
%% Time proportional to the number of entries; on a dirty scheduler above 64.
-spec hit_all([{limiter(), key(), Cost :: non_neg_integer()}]) ->
    {allow, [Remaining :: non_neg_integer()]} | {deny, Index :: pos_integer(), RetryAfterMs :: non_neg_integer()}.
hit_all(Entries) ->
    case hit_all_nif(Entries) of
        [denied, Name, Index | RetryAfterMs] ->
            {_, Key, Cost} = lists:nth(Index, Entries),
            {deny, Ms} = denied(Name, {hit, Key, preset, Cost}, RetryAfterMs),
            {deny, Index, Ms};
        Answer ->
            Answer
    end.

%% @doc Take budget now and use it later: for callers that rather wait than be denied. `gcra' with a preset limit and of local scope
%% only (`{badarg, {limiter, not_gcra | not_local}}').
%%
%% `{ok, WaitMs, Token}': the cost is debited, and `WaitMs' from now, 0 to `MaxWaitMs', is when a plain {@link hit/3} would have been
%% admitted: wait so long before you act. Who comes later waits longer. `{deny, RetryAfterMs}': the wait would be longer than
%% `MaxWaitMs'; nothing was debited, and the same reservation is admitted after that many milliseconds, if nobody else comes in
%% between. Who does not act after all gives the budget back with {@link refund/1}.
-spec reserve(limiter(), key(), Cost :: non_neg_integer(), MaxWaitMs :: non_neg_integer()) ->
    {ok, WaitMs :: non_neg_integer(), token()} | {deny, RetryAfterMs :: non_neg_integer()}.
reserve(Limiter, Key, Cost, MaxWaitMs) ->
    case reserve_nif(Limiter, Key, Cost, MaxWaitMs) of
        [_ | _] = More -> more(More, {hit, Key, preset, Cost});
        Answer -> Answer
    end.

%% @doc Give a reservation back. A token works once, in any process of its VM; of several at once, one gets `ok'.
%%
%% What time has given back since the reservation is not given back a second time. `{error, expired}': nothing is left to give back,
%% or the limiter was deleted; `{error, refunded}': the token was used.
-spec refund(token()) -> ok | {error, expired | refunded}.
refund(_Token) ->
    erlang:nif_error(not_loaded).

%% @doc The units that the key has used of the preset limit: `fixed_window' and `sliding_window' count them in the present window (the
%% latter with the weighted rest of the one before), `gcra' those that have not come back yet; rounded up.
-spec get(limiter(), key()) -> Count :: non_neg_integer() | unanswered().
get(Limiter, Key) ->
    case get_nif(Limiter, Key) of
        [_ | _] = More -> more(More, {get, Key, preset});
        Count -> Count
    end.

%% @doc As {@link get/2}, for this period; with `gcra', whose counts depend on the limit, it is the preset one.
-spec get(limiter(), key(), PeriodMs :: pos_integer()) -> Count :: non_neg_integer() | unanswered().
get(Limiter, Key, PeriodMs) ->
    case get_nif(Limiter, Key, PeriodMs) of
        [_ | _] = More -> more(More, {get, Key, PeriodMs});
        Count -> Count
    end.

%% @doc Count N units under the preset period, whatever the limit says, and give the new count.
%%
%% N is at most what the algorithm can count: 16777214 with `fixed_window', the largest limit of the period with `sliding_window', what
%% comes back within 4.5 years with `gcra' (else `{badarg, {n, out_of_range}}'). A count stops there, too, that of `gcra' at twice as
%% much. Concurrent hits and counts are never lost. Where the table is full, and `on_full' is not `evict', nothing is counted, and the
%% answer is 0.
-spec inc(limiter(), key(), N :: non_neg_integer()) -> Count :: non_neg_integer() | unanswered().
inc(Limiter, Key, N) ->
    case inc_nif(Limiter, Key, N) of
        [_ | _] = More -> more(More, {inc, Key, preset, N});
        Count -> Count
    end.

%% @doc As {@link inc/3}, for this period; with `gcra' it is the preset one.
-spec inc(limiter(), key(), PeriodMs :: pos_integer(), N :: non_neg_integer()) -> Count :: non_neg_integer() | unanswered().
inc(Limiter, Key, PeriodMs, N) ->
    case inc_nif(Limiter, Key, PeriodMs, N) of
        [_ | _] = More -> more(More, {inc, Key, PeriodMs, N});
        Count -> Count
    end.

%% @doc Set the units that the key has used under this period, as if that was just now, and give the new count. With `gcra' the period
%% is the preset one. Count has the range of {@link inc/3}'s N; 0 is a {@link reset/3}. The answer is 0 where nothing was kept, by
%% a full table as there, or by `gcra' with a limit of 0.
-spec set(limiter(), key(), PeriodMs :: pos_integer(), Count :: non_neg_integer()) -> Count :: non_neg_integer() | unanswered().
set(Limiter, Key, PeriodMs, Count) ->
    case set_nif(Limiter, Key, PeriodMs, Count) of
        [_ | _] = More -> more(More, {set, Key, PeriodMs, Count});
        Answer -> Answer
    end.

%% @doc Give the key its whole budget under the preset period back.
-spec reset(limiter(), key()) -> ok | unanswered().
reset(Limiter, Key) ->
    case reset_nif(Limiter, Key) of
        [_ | _] = More -> more(More, {reset, Key, preset});
        Answer -> Answer
    end.

%% @doc Give the key its whole budget under this period back.
-spec reset(limiter(), key(), PeriodMs :: pos_integer()) -> ok | unanswered().
reset(Limiter, Key, PeriodMs) ->
    case reset_nif(Limiter, Key, PeriodMs) of
        [_ | _] = More -> more(More, {reset, Key, PeriodMs});
        Answer -> Answer
    end.

%% @doc Options and figures of a limiter.
%%
%% `live' keys with consumed budget; `slots'; `bytes' once every slot was used (a capacity of 131072 to 8 million keys takes them from
%% the system at once, in huge pages where it has such); hits `allowed' (also those that were given back) and `denied'; `full': hits
%% that found no free slot; `evicted' entries; `clock_in_use' of the preset limit; `now': ms since the table was made; `owner': pid, or
%% `undefined' while it is dead. Looks at every slot, on a dirty scheduler: about 1 ms for each 100000 keys of capacity.
%%
%% Of a limiter that nodes share: `allowed' and `denied' are what this node's callers were answered, `live' the keys that this node
%% keeps; `members'; `asked': questions that another node answered; `unreachable': those that nobody answered; `leased': units that this
%% node was lent.
-spec info(limiter()) -> #{atom() => term()}.
info(Limiter) ->
    case info_nif(Limiter) of
        #{scope := local} = Info -> Info;
        #{name := Name} = Info -> foundation_limiter_cluster:info(Name, Info)
    end.

%% @doc The handle of a limiter.
-spec whereis(name()) -> handle() | undefined.
whereis(_Name) ->
    erlang:nif_error(not_loaded).

%% @doc Move a manual clock on; `{badarg, {clock, not_manual}}' on any other. It ends 18 years after its start
%% (`sliding_window': 8.7), and then raises `{badarg, {ms, out_of_range}}'.
-spec advance(limiter(), Ms :: non_neg_integer()) -> ok.
advance(_Limiter, _Ms) ->
    erlang:nif_error(not_loaded).

%% @private For the owner: create the table, or take it over.
-spec attach_nif(name(), tuple(), pid()) -> {ok, handle(), created | attached} | {error, term()}.
attach_nif(_Name, _Options, _Owner) ->
    erlang:nif_error(not_loaded).

%% @private The limiter's own table on this node, whatever its scope: as a limiter, for the functions of this module.
-spec home(handle()) -> handle().
home(Handle) ->
    bnot Handle.

%% @private Note the table's time in its file, and look what became of that.
-spec look_after_nif(limiter()) -> {Path :: binary() | undefined, Dropped :: non_neg_integer(), ok | {error, atom()}}.
look_after_nif(_Limiter) ->
    erlang:nif_error(not_loaded).

%% @private Remove the table, and with Discard its file; the owner goes on.
-spec remove_nif(limiter(), Discard :: boolean()) -> {ok, Owner :: pid()}.
remove_nif(_Limiter, _Discard) ->
    erlang:nif_error(not_loaded).

%% ---- what a native call leaves to Erlang -----------------------------------------------------------------------------------------

%% The functions above are thin: a native call answers a list only where the limiter's options ask for more, a budget that is not on
%% this node or a denial that is to be told.
-type more() :: nonempty_improper_list(cluster | denied | name(), boolean() | non_neg_integer()).

more([cluster, Name | Telemetry], Request) ->
    case foundation_limiter_cluster:request(Name, Request) of
        {deny, RetryAfterMs} when Telemetry -> denied(Name, Request, RetryAfterMs);
        Answer -> Answer
    end;
more([denied, Name | RetryAfterMs], Request) ->
    denied(Name, Request, RetryAfterMs).

%% A handler can only be attached through the telemetry module, so while that is not loaded there is none to call, and a release
%% without the package pays a look at the export table.
denied(Name, {hit, Key, Rule, Cost}, RetryAfterMs) when Cost > 0 ->
    _ = erlang:function_exported(telemetry, execute, 3) andalso
        apply(telemetry, execute, [
            [foundation_native, limiter, deny],
            #{count => 1, retry_after => RetryAfterMs},
            #{limiter => Name, key => Key, limit => Rule, cost => Cost}
        ]),
    {deny, RetryAfterMs};
denied(_Name, _Request, RetryAfterMs) ->
    {deny, RetryAfterMs}.

%% @private
-spec hit_nif(limiter(), key()) -> answer() | more().
hit_nif(_Limiter, _Key) ->
    erlang:nif_error(not_loaded).

%% @private
-spec hit_nif(limiter(), key(), non_neg_integer()) -> answer() | more().
hit_nif(_Limiter, _Key, _Cost) ->
    erlang:nif_error(not_loaded).

%% @private
-spec hit_nif(limiter(), key(), pos_integer(), non_neg_integer()) -> answer() | more().
hit_nif(_Limiter, _Key, _PeriodMs, _Limit) ->
    erlang:nif_error(not_loaded).

%% @private
-spec hit_nif(limiter(), key(), pos_integer(), non_neg_integer(), non_neg_integer()) -> answer() | more().
hit_nif(_Limiter, _Key, _PeriodMs, _Limit, _Cost) ->
    erlang:nif_error(not_loaded).

%% @private
-spec peek_nif(limiter(), key()) -> answer() | more().
peek_nif(_Limiter, _Key) ->
    erlang:nif_error(not_loaded).

%% @private
-spec peek_nif(limiter(), key(), pos_integer(), non_neg_integer()) -> answer() | more().
peek_nif(_Limiter, _Key, _PeriodMs, _Limit) ->
    erlang:nif_error(not_loaded).

%% @private
-spec reset_nif(limiter(), key()) -> ok | more().
reset_nif(_Limiter, _Key) ->
    erlang:nif_error(not_loaded).

%% @private
-spec reset_nif(limiter(), key(), pos_integer()) -> ok | more().
reset_nif(_Limiter, _Key, _PeriodMs) ->
    erlang:nif_error(not_loaded).

%% @private
-spec hit_all_nif([{limiter(), key(), non_neg_integer()}]) ->
    {allow, [non_neg_integer()]}
    | {deny, pos_integer(), non_neg_integer()}
    | nonempty_improper_list(denied | name() | pos_integer(), non_neg_integer()).
hit_all_nif(_Entries) ->
    erlang:nif_error(not_loaded).

%% @private
-spec reserve_nif(limiter(), key(), non_neg_integer(), non_neg_integer()) ->
    {ok, non_neg_integer(), token()} | {deny, non_neg_integer()} | more().
reserve_nif(_Limiter, _Key, _Cost, _MaxWaitMs) ->
    erlang:nif_error(not_loaded).

%% @private
-spec get_nif(limiter(), key()) -> non_neg_integer() | more().
get_nif(_Limiter, _Key) ->
    erlang:nif_error(not_loaded).

%% @private
-spec get_nif(limiter(), key(), pos_integer()) -> non_neg_integer() | more().
get_nif(_Limiter, _Key, _PeriodMs) ->
    erlang:nif_error(not_loaded).

%% @private
-spec inc_nif(limiter(), key(), non_neg_integer()) -> non_neg_integer() | more().
inc_nif(_Limiter, _Key, _N) ->
    erlang:nif_error(not_loaded).

%% @private
-spec inc_nif(limiter(), key(), pos_integer(), non_neg_integer()) -> non_neg_integer() | more().
inc_nif(_Limiter, _Key, _PeriodMs, _N) ->
    erlang:nif_error(not_loaded).

%% @private
-spec set_nif(limiter(), key(), pos_integer(), non_neg_integer()) -> non_neg_integer() | more().
set_nif(_Limiter, _Key, _PeriodMs, _Count) ->
    erlang:nif_error(not_loaded).

%% @private
-spec info_nif(limiter()) -> #{atom() => term()}.
info_nif(_Limiter) ->
    erlang:nif_error(not_loaded).

%% ---- of limiters that nodes share; Rule is preset or {PeriodMs, Limit} -----------------------------------------------------------

%% @private By the keeper of the key: take Cost, and of what is left one part in Share (0: nothing) to lend. Ms: how long the rest of
%% the units is good for, or no hit is admitted.
-spec lend_nif(limiter(), key(), foundation_limiter_cluster:rule(), pos_integer(), Share :: non_neg_integer()) ->
    {granted, Units :: pos_integer(), Remaining :: non_neg_integer(), Ms :: non_neg_integer()}
    | {denied, RetryAfterMs :: non_neg_integer(), Ms :: non_neg_integer()}.
lend_nif(_Limiter, _Key, _Rule, _Cost, _Share) ->
    erlang:nif_error(not_loaded).

%% @private Keep what was lent, for hits on this node until EndMs; Closed: there is nothing more until then.
-spec lease_nif(
    limiter(), key(), foundation_limiter_cluster:rule(), Units :: non_neg_integer(), EndMs :: non_neg_integer(), Closed :: boolean()
) -> ok.
lease_nif(_Limiter, _Key, _Rule, _Units, _EndMs, _Closed) ->
    erlang:nif_error(not_loaded).

%% @private Forget what was lent of the key's budget, and that it has none.
-spec forget_nif(limiter(), key(), foundation_limiter_cluster:rule()) -> ok.
forget_nif(_Limiter, _Key, _Rule) ->
    erlang:nif_error(not_loaded).

%% @private The clock of EndMs.
-spec lease_now_nif(limiter()) -> Ms :: non_neg_integer().
lease_now_nif(_Limiter) ->
    erlang:nif_error(not_loaded).

%% @private Forget of all keys that they have no budget.
-spec reopen_nif(limiter()) -> ok.
reopen_nif(_Limiter) ->
    erlang:nif_error(not_loaded).
