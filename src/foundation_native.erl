%% @doc Where this node keeps its native state.
%%
%% Application environment (see README): `data_dir' is a path, or `ephemeral' for a fresh folder that an orderly stop removes (tests);
%% without it the per-user data folder is used: `<user data>/foundation_native/<release or application>/<node>'.
-module(foundation_native).

-export([data_dir/0, flags_file/0, discard_ephemeral/0, may_create/1, native_path/1]).

-include_lib("kernel/include/file.hrl").

-define(APP, foundation_native).
-define(PATH_BYTES, 3500).
-define(EPHEMERAL, {?MODULE, ephemeral_dir}).

%% @doc The folder of this node's native state, created with mode 0700 where it is missing.
%%
%% `{error, {data_dir, Path, Reason}}' where it cannot be created, is no folder, or where root would create it inside a folder of
%% another user.
-spec data_dir() -> {ok, file:filename_all()} | {error, {data_dir, term(), term()}}.
data_dir() ->
    case application:get_env(?APP, data_dir, undefined) of
        undefined -> ensure(default_dir());
        ephemeral -> ephemeral_dir();
        Other ->
            case absolute(Other) of
                {ok, Path} -> ensure(Path);
                error -> {error, {data_dir, Other, not_a_path}}
            end
    end.

%% @doc The flag file of this node: the environment's `flags_file', else `flags' in the data folder.
-spec flags_file() -> {ok, file:filename_all()} | {error, {data_dir | flags_file, term(), term()}}.
flags_file() ->
    case application:get_env(?APP, flags_file, undefined) of
        undefined ->
            case data_dir() of
                {ok, Dir} -> {ok, filename:join(Dir, "flags")};
                Error -> Error
            end;
        Other ->
            case absolute(Other) of
                {ok, Path} -> {ok, Path};
                error -> {error, {flags_file, Other, not_a_path}}
            end
    end.

%% @private Remove the folder of `data_dir = ephemeral', at an orderly stop.
-spec discard_ephemeral() -> ok.
discard_ephemeral() ->
    case persistent_term:get(?EPHEMERAL, undefined) of
        undefined ->
            ok;
        Dir ->
            _ = file:del_dir_r(Dir),
            _ = persistent_term:erase(?EPHEMERAL),
            ok
    end.

%% @private A path as the NIFs take it: absolute, in the bytes that the file system has; or error, where it is none or too long.
-spec native_path(term()) -> binary() | error.
native_path(Path) when is_binary(Path), Path =/= <<>>; is_list(Path), Path =/= [] ->
    try unicode:characters_to_binary(filename:absname(Path), unicode, file:native_name_encoding()) of
        Bytes when is_binary(Bytes) -> checked_path(Bytes);
        _ when is_binary(Path) -> checked_path(filename:absname(Path));
        _ -> error
    catch
        error:_ -> error
    end;
native_path(_) ->
    error.

checked_path(Bytes) when byte_size(Bytes) < ?PATH_BYTES ->
    case binary:match(Bytes, <<0>>) of
        nomatch -> Bytes;
        _ -> error
    end;
checked_path(_) ->
    error.

default_dir() ->
    filename:join([filename:basedir(user_data, "foundation_native"), owner_name(), atom_to_list(node())]).

%% Two applications of one user keep their state apart: by the release, else by the application that depends on this one, else (a bare
%% shell) by the name of the boot script.
owner_name() ->
    case {os:getenv("RELEASE_NAME"), dependants()} of
        {Name, _} when is_list(Name), Name =/= "" ->
            Name;
        {_, [App | _]} ->
            atom_to_list(App);
        {_, []} ->
            {Name, _Vsn} = init:script_id(),
            [case lists:member(C, "/\\ ") of true -> $_; false -> C end || C <- Name]
    end.

%% Loaded before it is started, since its list of applications is what starts us.
dependants() ->
    lists:sort([
        App
     || {App, _, _} <- application:loaded_applications(),
        {ok, Needed} <- [application:get_key(App, applications)],
        lists:member(?APP, Needed)
    ]).

%% A folder that did not exist before, so that nothing of an earlier run is in it: in a container a VM has the same process id each
%% time.
ephemeral_dir() ->
    case persistent_term:get(?EPHEMERAL, undefined) of
        undefined ->
            Base = os:getenv("TMPDIR", "/tmp"),
            Unique = integer_to_list(erlang:system_time(nanosecond) + erlang:unique_integer([positive]), 36),
            Dir = filename:join(Base, "foundation_native-" ++ os:getpid() ++ "-" ++ Unique),
            case make_private(Dir) of
                {made, Dir} ->
                    persistent_term:put(?EPHEMERAL, Dir),
                    {ok, Dir};
                {exists, Dir} ->
                    ephemeral_dir();
                Error ->
                    Error
            end;
        Dir ->
            {ok, Dir}
    end.

absolute(Path) when is_list(Path), Path =/= []; is_binary(Path), Path =/= <<>> ->
    try
        {ok, filename:absname(Path)}
    catch
        error:_ -> error
    end;
absolute(_) ->
    error.

ensure(Dir) ->
    case file:read_file_info(Dir) of
        {ok, #file_info{type = directory}} -> {ok, Dir};
        {ok, _} -> {error, {data_dir, Dir, enotdir}};
        {error, enoent} -> create(Dir);
        {error, Reason} -> {error, {data_dir, Dir, Reason}}
    end.

%% Parents are created as the umask has it; the folder itself is private before anything is in it.
create(Dir) ->
    case may_create(Dir) of
        ok ->
            case filelib:ensure_dir(Dir) of
                ok -> made(make_private(Dir));
                {error, Reason} -> {error, {data_dir, Dir, Reason}}
            end;
        {error, Reason} ->
            {error, {data_dir, Dir, Reason}}
    end.

made({error, _} = Error) -> Error;
made({_, Dir}) -> {ok, Dir}.

make_private(Dir) ->
    case file:make_dir(Dir) of
        ok ->
            case file:change_mode(Dir, 8#700) of
                ok -> {made, Dir};
                {error, Reason} -> {error, {data_dir, Dir, Reason}}
            end;
        {error, eexist} ->
            {exists, Dir};
        {error, Reason} ->
            {error, {data_dir, Dir, Reason}}
    end.

%% @private Root works on what belongs to another user, but a file that root created there would lock that user out.
-spec may_create(file:filename_all()) -> ok | {error, term()}.
may_create(Dir) ->
    Parent = filename:dirname(Dir),
    case file:read_file_info(Parent) of
        {ok, #file_info{uid = Owner}} ->
            case effective_uid() of
                0 when Owner =/= 0 -> {error, owned_by_another_user};
                _ -> ok
            end;
        {error, enoent} when Parent =/= Dir ->
            may_create(Parent);
        {error, Reason} ->
            {error, Reason}
    end.

effective_uid() ->
    case file:read_file_info("/proc/self") of
        {ok, #file_info{uid = Uid}} -> Uid;
        {error, _} -> undefined
    end.
