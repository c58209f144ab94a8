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
%% ?WALK(name, Argument, function) is a function name(Times, At, Draws, Argument) that calls function(Argument, Key) with one key of the
%% draws after the other, from this place on.
-define(DRAWN(Function, Argument, Draws, At), ?KEEP(Function(Argument, element((At) band (1 bsl 20 - 1) + 1, Draws)))).
-define(WALK(Name, Argument, Function),
    Name(0, _, _, _) -> ok;
    Name(Times, At, Draws, Argument) ->
        ?DRAWN(Function, Argument, Draws, At), ?DRAWN(Function, Argument, Draws, At + 1), ?DRAWN(Function, Argument, Draws, At + 2),
        ?DRAWN(Function, Argument, Draws, At + 3), ?DRAWN(Function, Argument, Draws, At + 4), ?DRAWN(Function, Argument, Draws, At + 5),
        ?DRAWN(Function, Argument, Draws, At + 6), ?DRAWN(Function, Argument, Draws, At + 7), ?DRAWN(Function, Argument, Draws, At + 8),
        ?DRAWN(Function, Argument, Draws, At + 9),
        Name(Times - 10, At + 10, Draws, Argument)
).
