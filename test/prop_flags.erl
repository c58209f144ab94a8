%% Cohorts are those of erlang:phash2, for ids of every type; and what a sequence of commands does to flags is what a naive model says.
-module(prop_flags).

-include("fdn_proper.hrl").

-export([prop_cohorts/0, prop_model/0, mixed_ids/1]).

-define(F, foundation_flags).
-define(IDS_A_CASE, 1000).

%% ---- cohorts ----------------------------------------------------------------------------------------------------------------------

%% 1000 ids of mixed types a case: 10^5 with the default number of cases.
prop_cohorts() ->
    ?FORALL(
        {Flag, Percent, Seed},
        {flag_name(), range(0, 100), integer()},
        with_server(fun() ->
            ok = ?F:declare(Flag, #{}),
            ok = ?F:set_percentage(Flag, Percent),
            Ids = mixed_ids(Seed),
            [] =:= [Id || Id <- Ids, ?F:enabled_for(Flag, Id) =/= (erlang:phash2({Flag, Id}, 100) < Percent)]
        end)
    ).

flag_name() ->
    ?LET(Name, non_empty(list(range($a, $z))), list_to_atom("flags_prop_" ++ lists:sublist(Name, 3))).

mixed_ids(Seed) ->
    _ = rand:seed(exsss, {Seed, 17, 4}),
    [id(rand:uniform(16)) || _ <- lists:seq(1, ?IDS_A_CASE)].

id(1) -> rand:uniform(1000);
id(2) -> -rand:uniform(1000);
id(3) -> edge(27);
id(4) -> edge(31);
id(5) -> edge(59);
id(6) -> edge(63);
id(7) -> edge(64);
id(8) -> rand:bytes(rand:uniform(40) - 1);
id(9) -> integer_to_binary(rand:uniform(1 bsl 62));
%% A part of a binary that does not begin at a byte.
id(10) ->
    <<_:3, Part/binary>> = <<5:3, (rand:bytes(rand:uniform(30)))/binary>>,
    Part;
id(11) ->
    Bits = rand:uniform(70),
    <<(rand:uniform(1 bsl Bits)):Bits>>;
id(12) -> rand:uniform();
id(13) -> binary_to_atom(<<"flags_prop_id_", (integer_to_binary(rand:uniform(100)))/binary>>);
id(14) -> {user, id(rand:uniform(13)), [id(1)]};
id(15) -> #{id => id(rand:uniform(12))};
id(16) -> binary:copy(<<"long">>, 900 + rand:uniform(300)).

%% Around a power of two, of either sign.
edge(Bits) ->
    N = (1 bsl Bits) + rand:uniform(5) - 3,
    case rand:uniform(2) of
        1 -> N;
        2 -> -N
    end.

%% ---- a naive model ----------------------------------------------------------------------------------------------------------------

-define(FLAGS, [flags_prop_a, flags_prop_b, flags_prop_c, flags_prop_d]).

prop_model() ->
    ?FORALL(
        Commands,
        list(command()),
        with_server(fun() -> run(Commands, #{flags => #{}, groups => #{}}) end)
    ).

%% A flag's group is settled by its name, so that models and files agree on it.
group(Flag) when Flag =:= flags_prop_a; Flag =:= flags_prop_b -> g;
group(_) -> h.

command() ->
    frequency([
        {4, {declare, elements(?FLAGS), boolean()}},
        {6, {set, elements(?FLAGS), oneof([true, false, {percentage, range(0, 100)}])}},
        {2, {rollback, elements([g, h])}},
        {1, rollback_all},
        {3, {rearm, elements([g, h]), range(0, 1)}},
        {1, restart},
        {1, crash}
    ]).

run([], _) ->
    true;
run([Command | Rest], Model) ->
    Next = step(Command, Model),
    #{flags := Flags, groups := Groups} = Next,
    Expected = maps:map(fun(_, {Value, Epoch, Group}) -> in_force(Value, Epoch, maps:get(Group, Groups)) end, Flags),
    {Command, Expected} = {Command, ?F:list()},
    {Command, true} = {Command, lists:all(fun(F) -> ?F:enabled(F) =:= (maps:get(F, Expected, false) =:= true) end, ?FLAGS)},
    {Command, Groups} = {Command, maps:map(fun(_, #{epoch := E, state := S}) -> {E, S} end, ?F:groups())},
    run(Rest, Next).

in_force({_, Value}, Epoch, {Epoch, armed}) -> Value;
in_force(_, _, _) -> false.

%% flags: Flag => {{default | explicit, Value}, Epoch, Group}; groups: Group => {Epoch, State}
step({declare, Flag, Default}, #{flags := Flags, groups := Groups} = Model) ->
    Group = group(Flag),
    ok = ?F:declare(Flag, #{group => Group, default => Default}),
    {Epoch, State} = Now = maps:get(Group, Groups, {1, armed}),
    Declared =
        case Flags of
            #{Flag := {{default, _}, Epoch, _}} when State =:= armed -> {{default, Default}, Epoch, Group};
            #{Flag := Known} -> Known;
            _ when State =:= armed -> {{default, Default}, Epoch, Group};
            _ -> {{default, false}, 0, Group}
        end,
    Model#{flags := Flags#{Flag => Declared}, groups := Groups#{Group => Now}};
step({set, Flag, Value}, #{flags := Flags, groups := Groups} = Model) ->
    Result = ?F:set(Flag, Value),
    case Flags of
        #{Flag := {_, _, Group}} ->
            case Groups of
                #{Group := {Epoch, armed}} ->
                    ok = Result,
                    Model#{flags := Flags#{Flag => {{explicit, Value}, Epoch, Group}}};
                _ ->
                    {error, rolled_back} = Result,
                    Model
            end;
        _ ->
            {error, unknown_flag} = Result,
            Model
    end;
step({rollback, Group}, #{groups := Groups} = Model) ->
    Result = ?F:rollback(Group, model, 0),
    case Groups of
        #{Group := {Epoch, _}} ->
            {ok, #{epochs := Epochs}} = Result,
            #{Group := Next} = Epochs,
            Next = Epoch + 1,
            Model#{groups := Groups#{Group := {Next, rolled_back}}};
        _ ->
            {error, unknown_group} = Result,
            Model
    end;
step(rollback_all, #{groups := Groups} = Model) ->
    {ok, #{epochs := Epochs}} = ?F:rollback(all, model, 0),
    Epochs = maps:map(fun(_, {Epoch, _}) -> Epoch + 1 end, Groups),
    Model#{groups := maps:map(fun(_, {Epoch, _}) -> {Epoch + 1, rolled_back} end, Groups)};
step({rearm, Group, Off}, #{groups := Groups} = Model) ->
    case Groups of
        #{Group := {Epoch, State}} ->
            Result = ?F:rearm(Group, Epoch + Off),
            case {Off, State} of
                {0, rolled_back} ->
                    ok = Result,
                    Model#{groups := Groups#{Group := {Epoch, armed}}};
                {0, armed} ->
                    {error, not_rolled_back} = Result,
                    Model;
                {1, _} ->
                    {error, stale_epoch} = Result,
                    Model
            end;
        _ ->
            {error, unknown_group} = ?F:rearm(Group, 1),
            Model
    end;
step(restart, Model) ->
    gen_server:stop(?F),
    start(),
    Model;
step(crash, Model) ->
    Pid = whereis(?F),
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end,
    start(),
    Model.

%% ---- a server of the case's own ---------------------------------------------------------------------------------------------------

with_server(Fun) ->
    _ = application:stop(foundation_native),
    Dir = fdn_test:tmp_dir("flags_prop"),
    application:set_env(foundation_native, flags_file, filename:join(Dir, "flags")),
    try
        start(),
        Fun()
    after
        case whereis(?F) of
            undefined -> ok;
            Pid -> gen_server:stop(Pid)
        end,
        application:unset_env(foundation_native, flags_file),
        fdn_test:del_dir(Dir)
    end.

start() ->
    {ok, Pid} = foundation_flags_server:start_link(),
    unlink(Pid).
