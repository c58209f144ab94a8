%% @doc Feature flags in a memory-mapped file that processes of one host share.
%%
%% {@link enabled/1} is two aligned loads from the mapped file: no lock, no message, no table owned by a process. Every flag belongs
%% to a group, and {@link rollback/2} turns a whole group off with one atomic store, at the same instant for every VM, C node and tool
%% that has the file mapped. After a rollback {@link set/2} answers `{error, rolled_back}' until somebody who knows the group's
%% current epoch calls {@link rearm/2}; the flags then stay off, whatever their default, until they are set again.
%%
%% The file is the application's `flags_file' (see {@link foundation_native}); `foundation-flags' works on it with every VM down. A
%% set is in force when it returns and survives the death of the VM; it is synced to disk in the background. A rollback and a re-arm
%% are in force at once and have been synced to disk when they answer.
%%
%% Names are atoms of 1 to 55 bytes of UTF-8. A file has room for 1024 flags in 64 groups. Misuse raises `{badarg, {Argument, Reason}}'.
%% Before the application was started every flag reads false, and what changes a flag answers `{error, closed}' or `unknown_flag'.
%% After it was stopped flags read, are set and roll back as before; only declaring and subscribing need it.
-module(foundation_flags).

%% The contract.
-export([declare/2, enabled/1, get/1, enabled_for/2, set/2, enable/1, disable/1, set_percentage/2]).
-export([list/0, info/0, info/1, groups/0, rollback/2, rollback/3, rearm/2, subscribe/0, unsubscribe/0]).
%% For foundation_flags_server.
-export([open_nif/1, declare_nif/4, bind_nif/3, unbound_nif/0, file_info_nif/0, rollback_nif/3, looked_nif/0, stash_nif/1,
         stashed_nif/0, sync_nif/0, cohort_nif/2, trust_cohorts_nif/1, values/0, group_list/0, check_options/1, text/1,
         sync_process/0]).

-export_type([flag/0, group/0, value/0, options/0, group_info/0]).

-nifs([enabled/1, get/1, enabled_for_nif/2, set_nif/2, open_nif/1, declare_nif/4, bind_nif/3, unbound_nif/0, values_nif/1, groups_nif/1,
       flag_info_nif/1, file_info_nif/0, rollback_nif/3, rearm_nif/3, sync_nif/0, looked_nif/0, stash_nif/1, stashed_nif/0,
       cohort_nif/2, trust_cohorts_nif/1]).
-on_load(load/0).

-define(SERVER, foundation_flags).
-define(DESCRIPTIONS, foundation_flags_descriptions).
-define(ROLLBACK_TIMEOUT, 5000).

-type flag() :: atom().
-type group() :: atom().
-type value() :: boolean() | {percentage, 0..100}.
-type options() :: #{group => group(), default => boolean(), sticky => boolean(), description => iodata()}.
-type group_info() :: #{
    epoch := pos_integer(),
    state := armed | rolled_back,
    sticky := boolean(),
    reason := binary() | undefined,
    at := integer() | undefined,
    who := binary() | undefined,
    flags := [flag()]
}.

load() ->
    foundation_nif:loaded(?MODULE, erlang:load_nif(foundation_nif:library(?MODULE), ?MODULE)).

%% ---- flags ------------------------------------------------------------------------------------------------------------------------

%% @doc Make a flag known, with `group' (default `default'), `default' (default `false') and `description'; `sticky' is the group's:
%% whether a rollback holds until a re-arm (default `true').
%%
%% A known flag keeps its value and its group (`{error, other_group}'); a changed default counts while nobody has set the flag.
%% Declaring never undoes a rollback. `{error, full}' when the file has no room for the name, `{error, name_too_long}' over 55 bytes,
%% `{error, busy}' when another OS process has held the lock on the names for two seconds. Goes through the server; linear in the
%% number of flags.
-spec declare(flag(), options()) -> ok | {error, other_group | full | name_too_long | busy | read_only | faulted | closed | atom()}.
declare(Flag, Options) ->
    ok = check_flag(Flag),
    case check_options(Options) of
        ok -> call_declare(Flag, Options);
        {error, Bad} -> error({badarg, Bad})
    end.

call_declare(Flag, Options) ->
    call({declare, Flag, Options}).

%% The server stops with the application, before or during the call; or it crashes, and nobody knows what it has done.
call(Request) ->
    try
        gen_server:call(?SERVER, Request, infinity)
    catch
        exit:{_, {gen_server, call, _}} -> {error, closed}
    end.

%% @doc Whether the flag is on. False for percentage flags, unknown flags, and after a rollback. Two loads; about the cost of calling
%% a NIF.
-spec enabled(flag()) -> boolean().
enabled(_Flag) ->
    erlang:nif_error(not_loaded).

%% @doc The value in force; `undefined' for an unknown flag. Constant time.
-spec get(flag()) -> value() | undefined.
get(_Flag) ->
    erlang:nif_error(not_loaded).

%% @doc Whether the flag is on for this id: as set, or, for a percentage, whether `erlang:phash2({Flag, Id}, 100) < Percent', exactly.
%%
%% Any term is an id. Integers of 64 bits and binaries of up to 4 KB are hashed natively, others by `phash2' itself.
-spec enabled_for(flag(), Id :: term()) -> boolean().
enabled_for(Flag, Id) ->
    case enabled_for_nif(Flag, Id) of
        Percent when is_integer(Percent) -> erlang:phash2({Flag, Id}, 100) < Percent;
        Answer -> Answer
    end.

%% @doc Set a flag, for every process that has the file mapped. A compare-and-swap and a wake-up of the watchers.
-spec set(flag(), value()) -> ok | {error, unknown_flag | rolled_back | read_only | faulted}.
set(Flag, Value) ->
    case set_nif(Flag, Value) of
        {error, unknown_flag} ->
            %% Perhaps another VM declared it a moment ago.
            ok = foundation_flags_server:look(),
            set_nif(Flag, Value);
        Result ->
            Result
    end.

%% @equiv set(Flag, true)
-spec enable(flag()) -> ok | {error, unknown_flag | rolled_back | read_only | faulted}.
enable(Flag) ->
    set(Flag, true).

%% @equiv set(Flag, false)
-spec disable(flag()) -> ok | {error, unknown_flag | rolled_back | read_only | faulted}.
disable(Flag) ->
    set(Flag, false).

%% @doc `set(Flag, {percentage, Percent})'.
-spec set_percentage(flag(), 0..100) -> ok | {error, unknown_flag | rolled_back | read_only | faulted}.
set_percentage(Flag, Percent) when is_integer(Percent), Percent >= 0, Percent =< 100 ->
    set(Flag, {percentage, Percent});
set_percentage(Flag, _Percent) ->
    ok = check_flag(Flag),
    error({badarg, {percent, not_an_integer_from_0_to_100}}).

%% @doc Every known flag with its value in force. Linear.
-spec list() -> #{flag() => value()}.
list() ->
    maps:from_list([{Flag, Value} || {Flag, Value, _Group} <- values()]).

%% @doc What is known of a flag: `value' (in force), `group', `epoch' and `state' of the group, `default', `explicit' (set since it was
%% declared or rolled back), `changed_at' (milliseconds since 1970 of the last set, or `undefined'), `description'. `undefined' for an
%% unknown flag, `{error, faulted}' when the file was truncated.
-spec info(flag()) -> map() | undefined | {error, faulted | corrupt}.
info(Flag) ->
    ok = check_flag(Flag),
    case flag_info_nif(Flag) of
        {Index, Value, Default, Explicit, ChangedMs} ->
            case lists:keyfind(Index, 1, group_list()) of
                {Index, Group, Epoch, RolledBack, _Sticky, _Rollback, _Rearm} ->
                    #{
                        flag => Flag,
                        value => Value,
                        group => to_atom(Group),
                        epoch => Epoch,
                        state => state(RolledBack),
                        default => Default,
                        explicit => Explicit,
                        changed_at => if ChangedMs =:= 0 -> undefined; true -> ChangedMs end,
                        description => description(Flag)
                    };
                false ->
                    {error, faulted}
            end;
        Other ->
            Other
    end.

%% @doc The file: `path', `uuid', `flags' and `groups' (how many), `flag_capacity', `group_capacity', `generation' (goes up with every
%% change), `faulted' (truncated or overwritten under us: every flag reads off), `read_only', `guarded' (our SIGBUS handler is in
%% force), `last_sync' (its result), `native_cohorts'. `{error, closed}' before the first start.
-spec info() -> map() | {error, closed}.
info() ->
    case file_info_nif() of
        closed ->
            {error, closed};
        {Path, Uuid, Flags, FlagCapacity, Groups, GroupCapacity, Generation, Faulted, ReadOnly, Guarded, LastSync, NativeCohorts} ->
            #{
                path => Path,
                uuid => Uuid,
                flags => Flags,
                flag_capacity => FlagCapacity,
                groups => Groups,
                group_capacity => GroupCapacity,
                generation => Generation,
                faulted => Faulted,
                read_only => ReadOnly,
                guarded => Guarded,
                last_sync => LastSync,
                native_cohorts => NativeCohorts
            }
    end.

%% ---- groups -----------------------------------------------------------------------------------------------------------------------

%% @doc Every group: `epoch', `state' (`armed' or `rolled_back'), `sticky', its `flags', and of the rollback that led to this epoch the
%% `reason', `at' (milliseconds since 1970) and `who'; these are `undefined' where there was none, or its writer died before it could
%% say.
-spec groups() -> #{group() => group_info()}.
groups() ->
    Members = members(),
    maps:from_list([{to_atom(Name), group_info(Group, Members)} || {_, Name, _, _, _, _, _} = Group <- group_list()]).

group_info({Index, _Name, Epoch, RolledBack, Sticky, Rollback, _Rearm}, Members) ->
    {At, Who, Reason} =
        case Rollback of
            undefined -> {undefined, undefined, undefined};
            Said -> Said
        end,
    #{
        epoch => Epoch,
        state => state(RolledBack),
        sticky => Sticky,
        reason => Reason,
        at => At,
        who => Who,
        flags => maps:get(Index, Members, [])
    }.

%% @equiv rollback(Group, Reason, 5000)
-spec rollback(group() | all, Reason :: term()) ->
    {ok, #{epochs := #{group() => pos_integer()}, flags := [flag()], nodes := #{node() => ok | {error, atom()}}}}
    | {error, unknown_group | read_only | faulted | closed}.
rollback(Group, Reason) ->
    rollback(Group, Reason, ?ROLLBACK_TIMEOUT).

%% @doc Turn every flag of a group off, in every process at once; `all' is every group, one after the other.
%%
%% In force before anything is waited for. Then this waits up to `Timeout' milliseconds for the disk; `nodes' says how that went:
%% `{error, timeout}' or `{error, Posix}' means in force, but not known to be on disk. The reason (an atom, text, or any term, written
%% as text and cut at 119 bytes) is kept with the group.
-spec rollback(group() | all, Reason :: term(), timeout()) ->
    {ok, #{epochs := #{group() => pos_integer()}, flags := [flag()], nodes := #{node() => ok | {error, atom()}}}}
    | {error, unknown_group | read_only | faulted | closed}.
rollback(Group, Reason, Timeout) ->
    ok = check_name(group, Group),
    ok = check_timeout(Timeout),
    Text = text(Reason),
    Who = who(),
    case flip(Group, Text, Who) of
        {ok, Epochs} ->
            Disk = sync(Timeout),
            Members = members(),
            Index = maps:from_list([{to_atom(Name), I} || {I, Name, _, _, _, _, _} <- group_list()]),
            Flags = [Flag || G <- maps:keys(Epochs), Flag <- maps:get(maps:get(G, Index, none), Members, [])],
            {ok, #{epochs => Epochs, flags => lists:sort(Flags), nodes => #{node() => Disk}}};
        {error, _} = Error ->
            Error
    end.

flip(all, Text, Who) ->
    case file_info_nif() of
        closed -> {error, closed};
        _ -> flip_all([Name || {_, Name, _, _, _, _, _} <- group_list()], Text, Who, #{}, ok)
    end;
flip(Group, Text, Who) ->
    flip_all([atom_to_binary(Group, utf8)], Text, Who, #{}, ok).

%% An error with one group does not keep the others from being rolled back.
flip_all([], _Text, _Who, Epochs, ok) ->
    {ok, Epochs};
flip_all([], _Text, _Who, _Epochs, Error) ->
    Error;
flip_all([Name | Rest], Text, Who, Epochs, Result) ->
    case rollback_nif(Name, Text, Who) of
        {ok, Epoch} -> flip_all(Rest, Text, Who, Epochs#{to_atom(Name) => Epoch}, Result);
        {error, _} = Error -> flip_all(Rest, Text, Who, Epochs, Error)
    end.

%% @doc Let the flags of a rolled-back group be set again. Needs the group's current epoch (from {@link groups/0}, or from the
%% rollback's answer), so that nobody re-arms what was rolled back again meanwhile. A positive disk error (such as `eio') means: in
%% force, but perhaps not on disk.
-spec rearm(group(), Epoch :: pos_integer()) ->
    ok | {error, stale_epoch | not_rolled_back | unauthorized | unknown_group | read_only | faulted | closed | timeout | atom()}.
rearm(Group, Epoch) ->
    ok = check_name(group, Group),
    is_integer(Epoch) andalso Epoch > 0 andalso Epoch < 1 bsl 48 orelse error({badarg, {epoch, not_an_epoch}}),
    case rearm_nif(atom_to_binary(Group, utf8), Epoch, who()) of
        ok -> sync(?ROLLBACK_TIMEOUT);
        {error, _} = Error -> Error
    end.

%% @doc Have `{foundation_flags, changed, Flag, Value}' and `{foundation_flags, rolled_back, Group, Epoch, Reason}' sent to the
%% caller, for changes by any process of any VM or tool on this file.
%%
%% They tell of values in force: a rollback sends `rolled_back' first, then `changed' for every flag that it turned off. Changes that
%% follow each other within milliseconds may be told as one, the last. `Reason' is `undefined' where its writer died before it could
%% say. The subscription ends with the caller, and outlives a crash of the server, not a stop of the application. `{error, closed}'
%% where that does not run.
-spec subscribe() -> ok | {error, closed}.
subscribe() ->
    call({subscribe, self()}).

%% @doc End the caller's subscription.
-spec unsubscribe() -> ok | {error, closed}.
unsubscribe() ->
    call({unsubscribe, self()}).

%% ---- for the server ---------------------------------------------------------------------------------------------------------------

%% The lists come in parts. No funs around NIFs here: a fun is bound to the newest code, also while that is still loading its library.

%% @private [{Flag, ValueInForce, GroupIndex}], in the order of the file.
values() ->
    values(0).

values(From) ->
    case values_nif(From) of
        {List, done} -> List;
        {List, Next} -> List ++ values(Next)
    end.

%% @private [{Index, Name, Epoch, RolledBack, Sticky, Rollback, Rearm}]
group_list() ->
    group_list(0).

group_list(From) ->
    case groups_nif(From) of
        {List, done} -> List;
        {List, Next} -> List ++ group_list(Next)
    end.

%% @private The options of a declaration: ok, or what is wrong with which.
-spec check_options(term()) -> ok | {error, {atom(), term()}}.
check_options(Options) when is_map(Options) ->
    check_each(maps:to_list(Options));
check_options(_) ->
    {error, {options, not_a_map}}.

check_each([]) ->
    ok;
check_each([{Key, Value} | Rest]) ->
    case check_option(Key, Value) of
        ok -> check_each(Rest);
        Reason -> {error, {Key, Reason}}
    end.

check_option(group, Group) -> name_problem(Group);
check_option(Key, Value) when Key =:= default; Key =:= sticky ->
    case is_boolean(Value) of
        true -> ok;
        false -> not_a_boolean
    end;
check_option(description, Text) ->
    try unicode:characters_to_binary(Text) of
        Binary when is_binary(Binary) -> ok;
        _ -> not_text
    catch
        error:badarg -> not_text
    end;
check_option(_, _) -> unknown_option.

%% @private Any reason as text of a size that fits; the file keeps its first 119 bytes.
-spec text(term()) -> binary().
text(Reason) when is_atom(Reason) ->
    text_part(atom_to_binary(Reason, utf8));
text(Reason) ->
    try unicode:characters_to_binary(Reason) of
        Binary when is_binary(Binary) -> text_part(Binary);
        _ -> text_part(iolist_to_binary(io_lib:format("~0P", [Reason, 20])))
    catch
        error:_ -> text_part(unicode:characters_to_binary(io_lib:format("~0tP", [Reason, 20])))
    end.

text_part(Binary) ->
    NoNul = binary:replace(Binary, <<0>>, <<" ">>, [global]),
    binary:part(NoNul, 0, min(byte_size(NoNul), 256)).

%% ---- helpers ----------------------------------------------------------------------------------------------------------------------

members() ->
    lists:foldr(fun({Flag, _Value, Group}, Acc) -> maps:update_with(Group, fun(Fs) -> [Flag | Fs] end, [Flag], Acc) end, #{}, values()).

state(true) -> rolled_back;
state(false) -> armed.

%% A file has at most its capacity of names, so this cannot fill the atom table.
to_atom(Name) ->
    binary_to_atom(Name, utf8).

description(Flag) ->
    try ets:lookup(?DESCRIPTIONS, Flag) of
        [{Flag, Text}] -> Text;
        [] -> <<>>
    catch
        error:badarg -> <<>>
    end.

who() ->
    iolist_to_binary([pid_to_list(self()), " ", atom_to_binary(node(), utf8)]).

%% The dirty NIF itself cannot be given up, so it runs in a process of its own.
sync(Timeout) ->
    {Pid, Monitor} = spawn_monitor(?MODULE, sync_process, []),
    receive
        {'DOWN', Monitor, process, Pid, {synced, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, _} -> {error, eio}
    after Timeout ->
        demonitor(Monitor, [flush]),
        {error, timeout}
    end.

%% @private
-spec sync_process() -> no_return().
sync_process() ->
    exit({synced, sync_nif()}).

check_flag(Flag) ->
    check_name(flag, Flag).

check_name(Arg, Name) ->
    case name_problem(Name) of
        _ when Arg =:= group, Name =:= all -> ok;
        ok -> ok;
        Reason -> error({badarg, {Arg, Reason}})
    end.

%% The length is the file's to judge: {error, name_too_long}.
name_problem(Name) when not is_atom(Name) -> not_an_atom;
name_problem('') -> empty;
name_problem(all) -> reserved;
name_problem(Name) ->
    case lists:any(fun(C) -> C < 32 orelse C =:= 127 end, atom_to_list(Name)) of
        true -> control_character;
        false -> ok
    end.

check_timeout(infinity) -> ok;
check_timeout(Ms) when is_integer(Ms), Ms >= 0, Ms =< 16#ffffffff -> ok;
check_timeout(_) -> error({badarg, {timeout, not_a_timeout}}).

%% ---- NIFs; what they take and return stands at their C functions ------------------------------------------------------------------

enabled_for_nif(_Flag, _Id) -> erlang:nif_error(not_loaded).
set_nif(_Flag, _Value) -> erlang:nif_error(not_loaded).
%% @private
open_nif(_Path) -> erlang:nif_error(not_loaded).
%% @private
declare_nif(_Flag, _Group, _Default, _Sticky) -> erlang:nif_error(not_loaded).
%% @private
bind_nif(_Index, _Flag, _Hash) -> erlang:nif_error(not_loaded).
%% @private
unbound_nif() -> erlang:nif_error(not_loaded).
%% @private
file_info_nif() -> erlang:nif_error(not_loaded).
%% @private
rollback_nif(_Group, _Reason, _Who) -> erlang:nif_error(not_loaded).
%% @private
looked_nif() -> erlang:nif_error(not_loaded).
%% @private
stash_nif(_Term) -> erlang:nif_error(not_loaded).
%% @private
stashed_nif() -> erlang:nif_error(not_loaded).
%% @private
cohort_nif(_AtomHash, _Id) -> erlang:nif_error(not_loaded).
%% @private
trust_cohorts_nif(_Boolean) -> erlang:nif_error(not_loaded).
values_nif(_From) -> erlang:nif_error(not_loaded).
groups_nif(_From) -> erlang:nif_error(not_loaded).
flag_info_nif(_Flag) -> erlang:nif_error(not_loaded).
rearm_nif(_Group, _Epoch, _Who) -> erlang:nif_error(not_loaded).
%% @private
sync_nif() -> erlang:nif_error(not_loaded).
