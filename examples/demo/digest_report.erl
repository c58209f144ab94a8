%% @doc What the demo shows: a line of progress, and the table at the end.
-module(digest_report).

-export([new/0, progress/4, say/3, line/1, table/1, duration/1]).

-record(show, {tty, line = <<>>, shown = -1}).
-opaque show() :: #show{}.
-export_type([show/0]).

-spec new() -> show().
new() ->
    #show{tty = os:getenv("DEMO_TTY") =:= "1"}.

%% @doc Progress in per cent: one line that is rewritten on a terminal, a line every ten per cent elsewhere.
-spec progress(show(), iodata(), non_neg_integer(), non_neg_integer()) -> show().
progress(Show = #show{tty = Tty, line = Before, shown = Shown}, What, Done, Total) ->
    Percent = percent(Done, Total),
    Line = iolist_to_binary(io_lib:format("~3b %  ~ts ~b of ~b", [Percent, What, Done, Total])),
    Step = {What, Percent div 10},
    if
        Tty, Line =/= Before ->
            put_text(["\r\e[K", Line]),
            Show#show{line = Line};
        not Tty, Step =/= Shown ->
            put_text([Line, $\n]),
            Show#show{shown = Step};
        true ->
            Show
    end.

percent(_, 0) -> 100;
percent(Done, Total) -> Done * 100 div Total.

%% @doc A line of its own.
-spec say(show(), io:format(), [term()]) -> show().
say(Show = #show{tty = Tty, line = Line}, Format, Args) ->
    Text = io_lib:format(Format, Args),
    case Tty andalso Line =/= <<>> of
        true -> put_text(["\r\e[K", Text, $\n, Line]);
        false -> put_text([Text, $\n])
    end,
    Show.

%% @doc The line of progress stays; what follows begins a new one.
-spec line(show()) -> show().
line(Show = #show{tty = true, line = Line}) when Line =/= <<>> ->
    put_text("\n"),
    Show#show{line = <<>>};
line(Show) ->
    Show.

%% @doc Two columns.
-spec table([{iodata(), iodata()}]) -> ok.
table(Rows) ->
    Width = lists:max([string:length(Name) || {Name, _} <- Rows]),
    Rule = [lists:duplicate(Width + 34, $-), $\n],
    put_text([Rule, [io_lib:format("~ts  ~ts~n", [string:pad(Name, Width), Value]) || {Name, Value} <- Rows], Rule]).

%% @doc Nanoseconds, in the unit that suits.
-spec duration(integer()) -> iodata().
duration(Nanos) when Nanos < 1000000 -> io_lib:format("~b us", [max(1, Nanos div 1000)]);
duration(Nanos) when Nanos < 10000000000 -> io_lib:format("~.1f ms", [Nanos / 1000000]);
duration(Nanos) -> io_lib:format("~.1f s", [Nanos / 1000000000]).

put_text(Text) ->
    io:put_chars(Text).
