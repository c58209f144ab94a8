%% @doc Which files a folder holds.
-module(digest_files).

-export([list/1, path/2]).

-include_lib("kernel/include/file.hrl").

%% @doc Every regular file under Root, as raw bytes relative to it, and the folders that could not be read. Symbolic links are not
%% followed, so there are no loops; what a link inside the folder points at is visited under its own name.
-spec list(binary()) -> {[binary()], [{binary(), file:posix() | badarg}]}.
list(Root) ->
    walk([<<>>], Root, [], []).

%% @doc The place of a listed file. Raw bytes are passed to the system as they are, whatever the locale.
-spec path(binary(), binary()) -> binary().
path(Root, <<>>) -> Root;
path(Root, Name) -> <<Root/binary, $/, Name/binary>>.

walk([], _Root, Files, Unreadable) ->
    {lists:reverse(Files), lists:reverse(Unreadable)};
walk([Dir | Dirs], Root, Files, Unreadable) ->
    case file:list_dir_all(path(Root, Dir)) of
        {ok, Names} ->
            {SubDirs, Found} = sort_out([below(Dir, bytes(N)) || N <- Names], Root, [], []),
            walk(SubDirs ++ Dirs, Root, Found ++ Files, Unreadable);
        {error, Reason} ->
            walk(Dirs, Root, Files, [{Dir, Reason} | Unreadable])
    end.

sort_out([], _Root, Dirs, Files) ->
    {Dirs, Files};
sort_out([Name | Names], Root, Dirs, Files) ->
    case file:read_link_info(path(Root, Name)) of
        {ok, #file_info{type = directory}} -> sort_out(Names, Root, [Name | Dirs], Files);
        {ok, #file_info{type = regular}} -> sort_out(Names, Root, Dirs, [Name | Files]);
        _ -> sort_out(Names, Root, Dirs, Files)
    end.

below(<<>>, Name) -> Name;
below(Dir, Name) -> <<Dir/binary, $/, Name/binary>>.

bytes(Name) when is_binary(Name) -> Name;
bytes(Name) -> unicode:characters_to_binary(Name, unicode, file:native_name_encoding()).
