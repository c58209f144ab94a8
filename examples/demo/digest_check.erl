%% @doc The independent pass: lists and digests the files by code of its own, one after the other, and compares every result.
-module(digest_check).

-export([list/1, expected/3, recorded/1, compare/2, demanded/4]).

-include_lib("kernel/include/file.hrl").

-define(PIECE, 1048576).

-type fact() ::
    #{lines := non_neg_integer(), bytes := non_neg_integer(), digest := binary()}
    | #{error := file:posix()}.
-type recorded() :: #{results := #{binary() => map()}, finished := [binary()], queued := [binary()]}.

%% @doc Every regular file under Root, as raw bytes relative to it. Links are not followed.
-spec list(binary()) -> {ok, [binary()], Unreadable :: [binary()]} | {error, enoent | enotdir | eacces | atom()}.
list(Root) ->
    case file:read_file_info(Root) of
        {ok, #file_info{type = directory}} ->
            case file:list_dir_all(Root) of
                {ok, Names} ->
                    {Files, Unreadable} = lists:foldl(fun(Name, Acc) -> visit(Root, raw(Name), Acc) end, {[], []}, Names),
                    {ok, lists:sort(Files), Unreadable};
                {error, Reason} ->
                    {error, Reason}
            end;
        {ok, _} ->
            {error, enotdir};
        {error, Reason} ->
            {error, Reason}
    end.

visit(Root, Name, {Files, Unreadable}) ->
    Path = iolist_to_binary([Root, "/", Name]),
    case file:read_link_info(Path) of
        {ok, #file_info{type = regular}} ->
            {[Name | Files], Unreadable};
        {ok, #file_info{type = directory}} ->
            case file:list_dir_all(Path) of
                {ok, Names} ->
                    Visit = fun(Sub, Acc) -> visit(Root, iolist_to_binary([Name, "/", raw(Sub)]), Acc) end,
                    lists:foldl(Visit, {Files, Unreadable}, Names);
                {error, _} ->
                    {Files, [Name | Unreadable]}
            end;
        _ ->
            {Files, Unreadable}
    end.

raw(Name) when is_binary(Name) -> Name;
raw(Name) ->
    case file:native_name_encoding() of
        latin1 -> list_to_binary(Name);
        utf8 -> unicode:characters_to_binary(Name)
    end.

%% @doc What is true of each file. Tell is called after each with the number done.
-spec expected(binary(), [binary()], fun((pos_integer()) -> term())) -> #{binary() => fact()}.
expected(Root, Files, Tell) ->
    {Facts, _} = lists:foldl(
        fun(File, {Facts, N}) ->
            _ = Tell(N),
            {Facts#{File => fact(iolist_to_binary([Root, "/", File]))}, N + 1}
        end,
        {#{}, 1},
        Files
    ),
    Facts.

fact(Path) ->
    case file:open(Path, [read, raw, binary]) of
        {ok, Handle} ->
            Fact = read(Handle, crypto:hash_init(blake2b), #{lines => 0, bytes => 0}, $\n),
            _ = file:close(Handle),
            Fact;
        {error, Reason} ->
            #{error => Reason}
    end.

read(Handle, Hash, Fact = #{lines := Lines, bytes := Bytes}, Last) ->
    case file:read(Handle, ?PIECE) of
        {ok, Piece} ->
            {More, Last1} = feeds(Piece, 0, Last),
            Fact1 = Fact#{lines := Lines + More, bytes := Bytes + byte_size(Piece)},
            read(Handle, crypto:hash_update(Hash, Piece), Fact1, Last1);
        eof ->
            Fact1 = Fact#{digest => crypto:hash_final(Hash)},
            case Last of
                $\n -> Fact1;
                _ -> Fact1#{lines := Lines + 1}
            end;
        {error, Reason} ->
            #{error => Reason}
    end.

feeds(<<$\n, Rest/binary>>, N, _) -> feeds(Rest, N + 1, $\n);
feeds(<<Byte, Rest/binary>>, N, _) -> feeds(Rest, N, Byte);
feeds(<<>>, N, Last) -> {N, Last}.

%% @doc Everything that the store says: the result of each file, every commit of a result, and what is still in a queue.
-spec recorded(foundation_snapshot:store()) -> recorded().
recorded(Store) ->
    Nothing = #{results => #{}, finished => [], queued => []},
    foundation_snapshot:foldl(fun note/2, Nothing, Store).

note({{result, File}, Result}, Acc = #{results := Results}) -> Acc#{results := Results#{File => Result}};
note({{finished, _Agent, _N}, File}, Acc = #{finished := Finished}) -> Acc#{finished := [File | Finished]};
note({{queue, _Agent}, Queue}, Acc = #{queued := Queued}) -> Acc#{queued := queue:to_list(Queue) ++ Queued};
note(_, Acc) -> Acc.

%% @doc Where the record and the truth differ. `lost' has no result or no commit of one, `twice' more than one, `different' another
%% value, `unknown' was committed and is no file of the folder.
-spec compare(#{binary() => fact()}, recorded()) -> #{lost | twice | different | unknown => [binary()]}.
compare(Expected, #{results := Results, finished := Finished}) ->
    Commits = lists:foldl(fun(File, Acc) -> maps:update_with(File, fun(N) -> N + 1 end, 1, Acc) end, #{}, Finished),
    Files = maps:keys(Expected),
    #{
        lost => [File || File <- Files, not is_map_key(File, Results) orelse not is_map_key(File, Commits)],
        twice => [File || File <- Files, maps:get(File, Commits, 0) > 1 orelse times(File, Results) > 1],
        different => [File || File <- Files, is_map_key(File, Results), not same(maps:get(File, Expected), maps:get(File, Results))],
        unknown => lists:usort([File || File <- maps:keys(Results) ++ Finished, not is_map_key(File, Expected)])
    }.

times(File, Results) ->
    case Results of
        #{File := #{times := Times}} -> Times;
        _ -> 0
    end.

same(#{error := Reason}, #{error := Reason}) -> true;
same(#{lines := L, bytes := B, digest := D}, #{lines := L, bytes := B, digest := D}) -> true;
same(_, _) -> false.

%% @doc The files that must have crashed the second implementation: they do not fit its one buffer exactly once, they were begun after
%% the flag gave it their cohort, and the first implementation did them in the end. Without one of these a roll-back cannot be demanded.
-spec demanded(#{binary() => fact()}, recorded(), 0..100, integer()) -> [binary()].
demanded(Expected, #{results := Results}, Percent, Since) ->
    [
        File
     || {File, #{bytes := Bytes}} <- maps:to_list(Expected),
        Bytes =:= 0 orelse Bytes > 65536,
        erlang:phash2({digest_app:flag(), File}, 100) < Percent,
        #{by := digest_job, begun := Begun} <- [maps:get(File, Results, #{})],
        Begun > Since
    ].
