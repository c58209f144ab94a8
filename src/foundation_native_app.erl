%% @private
-module(foundation_native_app).
-behaviour(application).

-export([start/2, prep_stop/1, stop/1]).

start(_Type, _Args) ->
    case check([foundation_limiter, foundation_snapshot, foundation_flags]) of
        ok -> foundation_native_sup:start_link();
        {error, _} = Error -> Error
    end.

%% Before the tree goes down: the sentinel must be able to tell an orderly stop from the death of the VM.
prep_stop(State) ->
    foundation_sentinel:bye(),
    State.

stop(_State) ->
    foundation_native:discard_ephemeral().

check([]) ->
    ok;
check([Module | Rest]) ->
    case foundation_nif:check(Module) of
        ok -> check(Rest);
        Error -> Error
    end.
