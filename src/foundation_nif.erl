%% @doc Loading of the NIF libraries, and what to say when one does not load.
%%
%% A failing `on_load' shows only as `undef' at the first call. So each module hands the result of its `erlang:load_nif/2' to {@link
%% loaded/2}, which keeps the reason, and the application's start asks {@link check/1}. The call of `load_nif' stands in the module
%% itself, because it loads into whoever calls it:
%%
%% ```
%% -on_load(load/0).
%% load() -> foundation_nif:loaded(?MODULE, erlang:load_nif(foundation_nif:library(?MODULE), ?MODULE)).
%% '''
%%
%% The old code stays in force when the library of a new version is refused.
-module(foundation_nif).

-export([library/1, loaded/2, check/1, priv_file/1]).

-define(KEY(Module), {?MODULE, load_error, Module}).

%% @doc `priv/<Module>.so' as `erlang:load_nif/2' wants it: absolute and without the ending.
-spec library(module()) -> file:filename_all().
library(Module) ->
    priv_file(atom_to_list(Module)).

%% @doc What a module's `-on_load' returns, given what its `load_nif' returned.
-spec loaded(module(), ok | {error, {atom(), string()}}) -> ok | {error, term()}.
loaded(Module, ok) ->
    _ = persistent_term:erase(?KEY(Module)),
    ok;
loaded(Module, {error, Why}) ->
    Reason = reason(Why),
    persistent_term:put(?KEY(Module), Reason),
    {error, Reason}.

%% @doc Whether the module and its library are loaded; loads them where they are not.
-spec check(module()) -> ok | {error, {nif_not_loaded, module(), term()}}.
check(Module) ->
    case code:ensure_loaded(Module) of
        {module, Module} ->
            ok;
        {error, Why} ->
            {error, {nif_not_loaded, Module, persistent_term:get(?KEY(Module), Why)}}
    end.

%% @doc The absolute path of a file in this application's `priv'. `code:priv_dir/1' may be relative, and is unknown when the modules
%% were put on the path by hand.
-spec priv_file(file:name_all()) -> file:filename_all().
priv_file(Name) ->
    Dir =
        case code:priv_dir(foundation_native) of
            {error, bad_name} ->
                filename:join(filename:dirname(filename:dirname(code:which(?MODULE))), "priv");
            Found ->
                Found
        end,
    filename:absname(filename:join(Dir, Name)).

%% The numbers are those of enum FDN_LOAD_* in nif_common.h.
reason({load, Text}) -> {load, code_name(Text), Text};
reason({upgrade, Text}) -> {upgrade, code_name(Text), Text};
reason(Other) -> Other.

code_name(Text) ->
    case re:run(Text, "\\(([0-9]+)\\)", [{capture, all_but_first, list}]) of
        {match, [Digits]} ->
            Names = {enomem, resource_types, random_source, sigbus_guard, state, upgrade_refused, threads},
            case list_to_integer(Digits) of
                N when N >= 1, N =< tuple_size(Names) -> element(N, Names);
                _ -> unknown
            end;
        nomatch ->
            unknown
    end.
