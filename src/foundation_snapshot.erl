%% @doc A table of terms that survives the VM: an append-only log of checksummed records under an in-memory index.
%%
%% ```
%% {ok, Store} = foundation_snapshot:open(agents, #{path => "/var/lib/app/agents"}),
%% {ok, Saved} = foundation_snapshot:save(Store, {task_agent, 7}, State),
%% ...                                                            % kill -9, start again, open again
%% {ok, Saved1} = foundation_snapshot:load(Store, {task_agent, 7}),
%% State = foundation_snapshot:value(Saved1)
%% '''
%%
%% <b>What an answer promises</b>, by `durability':
%% <ul>
%% <li>`async' (default): the record is in memory shared with the kernel. It survives the death of the process and `kill -9' of the VM,
%%   not the death of the machine.</li>
%% <li>`{interval, Ms}': the same, and the machine may die later than `Ms' milliseconds (and the time of one flush) after it.</li>
%% <li>`sync': the record is on disk. Writers that wait at the same time share one flush.</li>
%% </ul>
%% In every mode a commit is there as a whole or not at all, and a write that answered an error changed nothing; but after
%% `{error, {read_only, _}}' in `sync' mode, when it was the flush that failed, the write is in the table while the store stays
%% open, and may or may not be there afterwards. Other processes may read a value a moment before its writer's `sync' answer.
%%
%% <b>The table</b> is a set of tuples with keypos 1. Keys are compared with `=:='. A key or object may be any term; pids, references
%% and ports mean what they mean in `term_to_binary/1' (one of this node is another one after a restart). Every function takes the
%% handle of {@link open/2} or the store's name.
%%
%% <b>Failure.</b> A failed flush, a write that the kernel refuses, or a file that somebody truncates turns the store read-only for
%% good: writes answer `{error, {read_only, Reason}}', reads go on, {@link info/1} says why. Full disk: `{error, enospc}'; `max_bytes'
%% reached: `{error, full}'; more than 512 MB in one value or 1 GB in one commit: `{error, too_big}'; nothing is lost in any of these.
%% A damaged record that a read meets is `{error, corrupt}' or `{error, faulted}', never a wrong value. Misuse raises `{badarg,
%% {Argument, Reason}}'; a closed store raises `{badarg, {store, closed}}' by handle and `{badarg, {store, not_open}}' by name.
%%
%% Small terms in `async' and `interval' mode are written and read on the caller's scheduler; whatever may take long or block runs on a
%% dirty I/O scheduler.
-module(foundation_snapshot).

-export([open/2, start_link/2, child_spec/1, close/1, whereis/1, info/1, sync/1]).
-export([save/3, load/2, update/4, update/5, commit/2, value/1, version/1]).
-export([insert/2, lookup/2, member/2, delete/2, tab2list/1, foldl/3]).
%% For foundation_snapshot_owner.
-export([open_nif/8, close_nif/1, normalise/2]).

-export_type([store/0, name/0, options/0, saved/0, version/0, operation/0, write_error/0, open_error/0]).

-nifs([save/3, update/4, insert/2, delete/2, commit/2, load/2, lookup/2, member/2, sync/1, info/1, whereis/1, open_nif/8, close_nif/1,
       scan_nif/2]).
-on_load(load/0).
-compile({no_auto_import, [whereis/1]}).

-define(SUP, foundation_snapshot_sup).
-define(SEGMENT_MIN, 65536).
-define(SEGMENT_MAX, 1073741824).
-define(MAX_BYTES_MIN, 1048576).
-define(INTERVAL_MAX, 86400000).

-type name() :: atom().
-type store() :: name() | reference().
-type version() :: non_neg_integer().
-opaque saved() :: {foundation_saved, non_neg_integer(), version(), term()}.
-type options() :: #{
    path => file:name_all(),
    durability => async | sync | {interval, pos_integer()},
    segment_bytes => pos_integer(),
    max_bytes => pos_integer()
}.
-type operation() ::
    {put, Key :: term(), Value :: term()}
    | {update, Key :: term(), saved(), New :: term()}
    | {delete, Key :: term()}
    | {expect, Key :: term(), version() | absent}.
-type write_error() :: full | too_big | enomem | too_many_mappings | file:posix() | {read_only, atom()}.
-type read_error() :: corrupt | faulted | enomem.
-type open_error() ::
    {badarg, {atom(), atom()}}
    | {locked, OsPid :: non_neg_integer()}
    | {corrupt, {file:filename_all(), Offset :: non_neg_integer()}}
    | {foreign_file | unsupported_version, file:filename_all()}
    | {path, file:filename_all(), file:posix() | owned_by_another_user}
    | {already_open, file:filename_all()}
    | {not_started, foundation_native}
    | {data_dir, term(), term()}
    | enomem
    | too_many_mappings.

load() ->
    foundation_nif:loaded(?MODULE, erlang:load_nif(foundation_nif:library(?MODULE), ?MODULE)).

%% ---- opening and closing ----------------------------------------------------------------------------------------------------------

%% @doc Open a store, owned by a process under this application's supervisor: it stays open when the caller dies, and when its owner
%% crashes the restarted one takes the living table over.
%%
%% Options: `path', a directory, created with mode 0700 where only its last part is missing (default `<data folder>/snapshot/<Name>');
%% `durability'; `segment_bytes', the size of a log file at most (64 KB to 1 GB, default 64 MB; the first ones are smaller);
%% `max_bytes', the size of all files at most (from 1 MB; default no limit; an eighth is kept for deletes and compaction).
%%
%% A name that is open with the same path gives the open store, whatever the other options; with another path `{error, {already_open,
%% Path}}'. A directory that another process or another name of this VM has open: `{error, {locked, OsPid}}'. `{error, {corrupt, {File,
%% Offset}}}': damage that no crash explains; no file was changed. A torn tail, which a crash does explain, is cut off. Takes the time
%% of reading the log once, and verifies every checksum.
-spec open(name(), options()) -> {ok, store()} | {error, open_error()}.
open(Name, Options) ->
    case normalise(Name, Options) of
        {ok, Normal} -> start_owner(Name, Normal);
        {error, _} = Error -> Error
    end.

start_owner(Name, Normal) ->
    try supervisor:start_child(?SUP, [Name, Normal]) of
        {ok, _Owner} -> opened(Name);
        {error, _} = Error -> Error
    catch
        exit:{noproc, _} -> {error, {not_started, foundation_native}}
    end.

opened(Name) ->
    case whereis(Name) of
        undefined -> {error, enomem};
        Store -> {ok, Store}
    end.

%% @doc Open a store owned by a process that is linked to the caller, for a supervisor of one's own; see {@link child_spec/1}. Stopping
%% the owner flushes and closes the store. Errors as {@link open/2}, and `{error, {already_started, Owner}}'.
-spec start_link(name(), options()) -> {ok, pid()} | {error, open_error() | {already_started, pid()}}.
start_link(Name, Options) ->
    case normalise(Name, Options) of
        {ok, Normal} -> foundation_snapshot_owner:start_link(Name, Normal);
        {error, _} = Error -> Error
    end.

%% @doc The child of a supervisor that owns a store. It is restarted after a crash, not after {@link close/1}.
-spec child_spec({name(), options()}) -> supervisor:child_spec().
child_spec({Name, Options}) ->
    #{
        id => {?MODULE, Name},
        start => {?MODULE, start_link, [Name, Options]},
        restart => transient,
        shutdown => infinity,
        modules => [foundation_snapshot_owner]
    }.

%% @doc Flush, close and forget the store, and stop its owner. Calls in flight end with what they have done or raise. The answer is the
%% flush's result; after an error what was acknowledged in `async' mode may be lost with the machine, as {@link info/1} said before.
-spec close(store()) -> ok | {error, atom()}.
close(Store) ->
    {Flushed, Owner} = close_nif(Store),
    ok = foundation_snapshot_owner:closed(Owner),
    Flushed.

%% @doc The handle of an open store, or `undefined'.
-spec whereis(name()) -> store() | undefined.
whereis(_Name) ->
    erlang:nif_error(not_loaded).

%% @doc What the store tells of itself: `name', `path', `durability', `owner', `uuid', `keys', `version' (the last one given out),
%% `durable_version' (up to which everything is on disk), `read_only' (`false' or why), sizes in bytes: `live_bytes' (records that are
%% needed), `used_bytes' (written into the log), `disk_bytes' (its files), `memory' (the index); `segments' (files), `tombstones'
%% (deleted keys with older records on disk), `compactions' (files removed), `copied_bytes' (by compaction), `recovered_cut' (bytes of
%% a torn tail that opening cut off).
-spec info(store()) -> #{atom() => term()}.
info(_Store) ->
    erlang:nif_error(not_loaded).

%% @doc Return when everything written so far, by anybody, is on disk. One flush.
-spec sync(store()) -> ok | {error, write_error()}.
sync(_Store) ->
    erlang:nif_error(not_loaded).

%% ---- states -----------------------------------------------------------------------------------------------------------------------

%% @doc Store a value under a key, whatever was there. Stores what `insert(Store, {Key, Value})' stores. Linear in the value's size.
-spec save(store(), Key :: term(), Value :: term()) -> {ok, saved()} | {error, write_error()}.
save(_Store, _Key, _Value) ->
    erlang:nif_error(not_loaded).

%% @doc The value of a key and its version, as one `Saved'. An object that is no pair is `not_found'. Linear in the value's size.
-spec load(store(), Key :: term()) -> {ok, saved()} | {error, not_found | read_error()}.
load(_Store, _Key) ->
    erlang:nif_error(not_loaded).

%% @doc Replace the value that `Saved' stands for. Where the store holds another version by now, or the store was opened again since,
%% `{error, {conflict, Version | absent}}' says what it holds, and nothing changes.
-spec update(store(), Key :: term(), saved(), New :: term()) ->
    {ok, saved()} | {error, {conflict, version() | absent} | write_error()}.
update(_Store, _Key, _Saved, _New) ->
    erlang:nif_error(not_loaded).

%% @doc {@link update/4} with options: `#{stale => overwrite}' writes the value in spite of a conflict; `error' is the default.
-spec update(store(), Key :: term(), saved(), New :: term(), #{stale => overwrite | error}) ->
    {ok, saved()} | {error, {conflict, version() | absent} | write_error()}.
update(Store, Key, Saved, New, Options) ->
    _ = version(Saved),
    case Options of
        #{stale := overwrite} when map_size(Options) =:= 1 -> save(Store, Key, New);
        #{stale := error} when map_size(Options) =:= 1 -> update(Store, Key, Saved, New);
        _ when Options =:= #{} -> update(Store, Key, Saved, New);
        _ -> error({badarg, {options, unknown_option}})
    end.

%% @doc Several operations as one: all of them happen, or none, for readers and after a crash alike.
%%
%% `update' and `expect' are conditions on the table as it was before; the first that does not hold is named by
%% `{error, {conflict, Key}}'. Writes take effect in order. The answer has the Saved of the puts and updates, in order.
-spec commit(store(), [operation()]) -> {ok, [saved()]} | {error, {conflict, Key :: term()} | write_error()}.
commit(_Store, _Operations) ->
    erlang:nif_error(not_loaded).

%% @doc The value that was saved or loaded. Constant time.
-spec value(saved()) -> term().
value({foundation_saved, _Incarnation, _Version, Value}) -> Value;
value(_) -> error({badarg, {saved, not_saved}}).

%% @doc The version of the key's last write: increasing over the whole store, never used twice, kept by reopening and compaction.
-spec version(saved()) -> version().
version({foundation_saved, _Incarnation, Version, _Value}) -> Version;
version(_) -> error({badarg, {saved, not_saved}}).

%% ---- as ets -----------------------------------------------------------------------------------------------------------------------

%% @doc Insert a tuple, or all tuples of a list in one atomic write.
-spec insert(store(), tuple() | [tuple()]) -> true | {error, write_error()}.
insert(_Store, _Objects) ->
    erlang:nif_error(not_loaded).

%% @doc The object of a key, as a list of one, or the empty list.
-spec lookup(store(), Key :: term()) -> [tuple()] | {error, read_error()}.
lookup(_Store, _Key) ->
    erlang:nif_error(not_loaded).

%% @doc Whether the key is there. Reads memory only.
-spec member(store(), Key :: term()) -> boolean().
member(_Store, _Key) ->
    erlang:nif_error(not_loaded).

%% @doc Delete a key; nothing is written where it is absent.
-spec delete(store(), Key :: term()) -> true | {error, write_error()}.
delete(_Store, _Key) ->
    erlang:nif_error(not_loaded).

%% @doc All objects, in no order. Not isolated: a key that is there from beginning to end is met once, others once or not at all.
-spec tab2list(store()) -> [tuple()].
tab2list(Store) ->
    foldl(fun(Object, Acc) -> [Object | Acc] end, [], Store).

%% @doc Fold over all objects, in no order; isolated as {@link tab2list/1} is. The fun may use the store. Holds some 200 objects at a
%% time. Raises `{foundation_snapshot, corrupt | faulted | enomem}' where an object cannot be read.
-spec foldl(fun((tuple(), Acc) -> Acc), Acc, store()) -> Acc.
foldl(Fun, Acc, Store) when is_function(Fun, 2) ->
    fold(Fun, Acc, Store, 0);
foldl(_Fun, _Acc, _Store) ->
    error({badarg, {function, not_a_fun_of_two}}).

fold(Fun, Acc, Store, Cursor) ->
    case scan_nif(Store, Cursor) of
        {error, Reason} -> error({foundation_snapshot, Reason});
        {0, Objects} -> lists:foldl(Fun, Acc, Objects);
        {Next, Objects} -> fold(Fun, lists:foldl(Fun, Acc, Objects), Store, Next)
    end.

%% ---- options ----------------------------------------------------------------------------------------------------------------------

%% @private The options as the NIF takes them: {PathBytes, Durability, IntervalMs, SegmentBytes, MaxBytes}. Creates the directory.
-spec normalise(term(), term()) -> {ok, tuple()} | {error, open_error()}.
normalise(Name, _Options) when not is_atom(Name); Name =:= undefined ->
    {error, {badarg, {name, not_an_atom}}};
normalise(_Name, Options) when not is_map(Options) ->
    {error, {badarg, {options, not_a_map}}};
normalise(Name, Options) ->
    case lists:filtermap(fun wrong_option/1, maps:to_list(Options)) of
        [] -> with_directory(Name, Options);
        [{Option, Reason} | _] -> {error, {badarg, {Option, Reason}}}
    end.

wrong_option({path, Path}) when is_binary(Path), Path =/= <<>>; is_list(Path), Path =/= [] ->
    case foundation_native:native_path(Path) of
        error -> {true, {path, not_a_path}};
        _ -> false
    end;
wrong_option({path, _}) -> {true, {path, not_a_path}};
wrong_option({durability, D}) when D =:= async; D =:= sync -> false;
wrong_option({durability, {interval, Ms}}) when is_integer(Ms), Ms > 0, Ms =< ?INTERVAL_MAX -> false;
wrong_option({durability, {interval, _}}) -> {true, {durability, out_of_range}};
wrong_option({durability, _}) -> {true, {durability, unknown_value}};
wrong_option({segment_bytes, N}) -> out_of_range(segment_bytes, N, ?SEGMENT_MIN, ?SEGMENT_MAX);
wrong_option({max_bytes, N}) -> out_of_range(max_bytes, N, ?MAX_BYTES_MIN, 1 bsl 60);
wrong_option({Option, _}) when Option =:= encryption_key; Option =:= mirror; Option =:= schema; Option =:= migrate; Option =:= ttl ->
    {true, {Option, not_supported}};
wrong_option({Option, _}) -> {true, {Option, unknown_option}}.

out_of_range(_Option, N, Min, Max) when is_integer(N), N >= Min, N =< Max -> false;
out_of_range(Option, N, _Min, _Max) when is_integer(N) -> {true, {Option, out_of_range}};
out_of_range(Option, _, _Min, _Max) -> {true, {Option, not_an_integer}}.

with_directory(Name, Options) ->
    case directory(Name, Options) of
        {ok, Path} ->
            {Durability, Interval} =
                case maps:get(durability, Options, async) of
                    {interval, Ms} -> {interval, Ms};
                    Mode -> {Mode, 0}
                end,
            {ok, {Path, Durability, Interval, maps:get(segment_bytes, Options, 0), maps:get(max_bytes, Options, 0)}};
        {error, _} = Error ->
            Error
    end.

directory(_Name, #{path := Path}) ->
    make_directory(foundation_native:native_path(Path));
directory(Name, _Options) ->
    case foundation_native:data_dir() of
        {ok, DataDir} ->
            Parent = filename:join(DataDir, "snapshot"),
            case make_directory(foundation_native:native_path(Parent)) of
                {ok, _} -> make_directory(foundation_native:native_path(filename:join(Parent, atom_to_list(Name))));
                Error -> Error
            end;
        Error ->
            Error
    end.

make_directory(error) ->
    {error, {badarg, {path, not_a_path}}};
make_directory(Path) ->
    case filelib:is_dir(Path) of
        true -> {ok, Path};
        false -> create_directory(Path)
    end.

create_directory(Path) ->
    Made =
        case foundation_native:may_create(Path) of
            ok -> file:make_dir(Path);
            Refused -> Refused
        end,
    case Made of
        ok ->
            _ = file:change_mode(Path, 8#700),
            {ok, Path};
        {error, eexist} ->
            %% A file, or a directory that another process has just made: opening it tells.
            {ok, Path};
        {error, Reason} ->
            {error, {path, to_name(Path), Reason}}
    end.

to_name(Bytes) ->
    case unicode:characters_to_list(Bytes) of
        Name when is_list(Name) -> Name;
        _ -> Bytes
    end.

%% ---- for the owner ----------------------------------------------------------------------------------------------------------------

%% @private Open the store, or take it over from an owner that is dead.
-spec open_nif(
    name(), binary(), async | sync | interval, non_neg_integer(), non_neg_integer(), non_neg_integer(), boolean(), pid()
) -> {ok, store()} | tuple().
open_nif(_Name, _Path, _Durability, _IntervalMs, _SegmentBytes, _MaxBytes, _ZerosEqual, _Owner) ->
    erlang:nif_error(not_loaded).

%% @private
-spec close_nif(store()) -> {ok | {error, atom()}, pid()}.
close_nif(_Store) ->
    erlang:nif_error(not_loaded).

-spec scan_nif(store(), non_neg_integer()) -> {non_neg_integer(), [tuple()]} | {error, read_error()}.
scan_nif(_Store, _Cursor) ->
    erlang:nif_error(not_loaded).
