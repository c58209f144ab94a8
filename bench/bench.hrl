%% Loops for what takes nanoseconds: ten calls a turn, so that the loop itself does not count, and a result that is looked at, so that
%% the compiler keeps the call. ?LOOP(name, Argument, Expression) is a function name(Times, Argument); Times is a multiple of ten.
-define(KEEP(Expression),
    case Expression of
        '$never' -> erlang:halt(3);
        _ -> ok
    end
).
-define(LOOP(Name, Argument, E),
    Name(0, _) -> ok;
    Name(Times, All) ->
        Argument = All,
        ?KEEP(E), ?KEEP(E), ?KEEP(E), ?KEEP(E), ?KEEP(E), ?KEEP(E), ?KEEP(E), ?KEEP(E), ?KEEP(E), ?KEEP(E),
        Name(Times - 10, All)
).
