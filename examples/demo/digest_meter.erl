%% @doc Times, inside the worker VM, how long the flag stays on after an agent crashed.
-module(digest_meter).

-export([run/1]).

-record(meter, {parent, watched = #{}, crashes = 0, last = undefined}).

%% @doc Watch the agents with monitors of this VM and the flag by a subscription. When it is off after a crash, Parent gets
%% `{rolled_back, Crashes, Nanoseconds since the last crash}', the time until the message included. Runs until then, or until Parent's
%% node is gone.
-spec run(pid()) -> ok.
run(Parent) ->
    _ = erlang:monitor(process, Parent),
    ok = foundation_flags:subscribe(),
    Parent ! {meter_ready, self()},
    loop(watch(#meter{parent = Parent})).

%% It does not spin: what is measured needs the processors itself. Every millisecond it looks whom the supervisor has started again.
loop(M = #meter{parent = Parent, watched = Watched}) ->
    Group = digest_app:group(),
    receive
        {'DOWN', _, process, Parent, _} ->
            ok;
        {'DOWN', Ref, process, _, Reason} when is_map_key(Ref, Watched) ->
            Now = erlang:monotonic_time(nanosecond),
            M1 = M#meter{watched = maps:remove(Ref, Watched)},
            case ordinary(Reason) of
                true -> loop(watch(M1));
                false -> crashed(Now, M1#meter{crashes = M#meter.crashes + 1})
            end;
        {foundation_flags, rolled_back, Group, _Epoch, _Reason} when M#meter.last =/= undefined ->
            rolled_back(M);
        {foundation_flags, _, _, _} ->
            loop(M);
        {foundation_flags, _, _, _, _} ->
            loop(M)
    after 1 ->
        case M#meter.last =:= undefined orelse foundation_flags:get(digest_app:flag()) of
            false -> rolled_back(M);
            _ -> loop(watch(M))
        end
    end.

%% Where the flag is off already, an earlier crash had it switched off.
crashed(Now, M = #meter{last = Last}) ->
    case foundation_flags:get(digest_app:flag()) of
        false when Last =/= undefined -> rolled_back(M);
        false -> rolled_back(M#meter{last = Now});
        _ -> loop(M#meter{last = Now})
    end.

rolled_back(#meter{parent = Parent, crashes = Crashes, last = Last}) ->
    Parent ! {rolled_back, Crashes, erlang:monotonic_time(nanosecond) - Last},
    ok.

ordinary(normal) -> true;
ordinary(shutdown) -> true;
ordinary({shutdown, _}) -> true;
ordinary(noproc) -> true;
ordinary(_) -> false.

%% Whoever was restarted meanwhile is watched again.
watch(M = #meter{watched = Watched}) ->
    Names = maps:values(Watched),
    All = [digest_agent:name(Id) || Id <- digest_agent:ids()],
    Missing = [Name || Name <- All -- Names, whereis(Name) =/= undefined],
    M#meter{watched = lists:foldl(fun(Name, Acc) -> Acc#{erlang:monitor(process, Name) => Name} end, Watched, Missing)}.
