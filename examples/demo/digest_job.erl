%% @doc The first implementation: reads a file in pieces, so that its size does not matter.
-module(digest_job).

-export([digest/1]).

-define(PIECE, 65536).

%% @doc Line count (a last line without a line feed counts), size and BLAKE2b-512 digest of a file.
-spec digest(file:name_all()) ->
    {ok, #{lines := non_neg_integer(), bytes := non_neg_integer(), digest := binary()}} | {error, file:posix()}.
digest(Path) ->
    case file:open(Path, [read, raw, binary]) of
        {ok, File} ->
            try
                pieces(File, 0, 0, $\n, crypto:hash_init(blake2b))
            after
                file:close(File)
            end;
        {error, Reason} ->
            {error, Reason}
    end.

pieces(File, Lines, Bytes, Last, Hash) ->
    case file:read(File, ?PIECE) of
        {ok, Piece} ->
            Feeds = length(binary:matches(Piece, <<"\n">>)),
            pieces(File, Lines + Feeds, Bytes + byte_size(Piece), binary:last(Piece), crypto:hash_update(Hash, Piece));
        eof ->
            Open = case Last of $\n -> 0; _ -> 1 end,
            {ok, #{lines => Lines + Open, bytes => Bytes, digest => crypto:hash_final(Hash)}};
        {error, Reason} ->
            {error, Reason}
    end.
