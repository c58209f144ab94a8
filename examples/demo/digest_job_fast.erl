%% @doc The second implementation: one read, one hash, one pass over the text.
%%
%% It was tested on source files. `unicode:characters_to_list/1' does not return a list when the bytes are no UTF-8, so the first
%% compiled module or picture that it meets ends the agent with a function_clause.
-module(digest_job_fast).

-export([digest/1]).

%% @doc As {@link digest_job:digest/1}.
-spec digest(file:name_all()) ->
    {ok, #{lines := non_neg_integer(), bytes := non_neg_integer(), digest := binary()}} | {error, file:posix()}.
digest(Path) ->
    case file:read_file(Path) of
        {ok, Bytes} ->
            Lines = lines(unicode:characters_to_list(Bytes), 0, $\n),
            {ok, #{lines => Lines, bytes => byte_size(Bytes), digest => crypto:hash(blake2b, Bytes)}};
        {error, Reason} ->
            {error, Reason}
    end.

lines([$\n | Text], Lines, _) -> lines(Text, Lines + 1, $\n);
lines([Char | Text], Lines, _) -> lines(Text, Lines, Char);
lines([], Lines, $\n) -> Lines;
lines([], Lines, _) -> Lines + 1.
