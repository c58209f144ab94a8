defmodule Foundation.Native.LimiterTest do
  use ExUnit.Case, async: true

  alias Foundation.Native.Limiter

  doctest Limiter

  defp start(options) do
    name = :"limiter_ex_#{System.unique_integer([:positive])}"
    start_supervised!({Limiter, [name: name, clock: :manual, capacity: 100] ++ options})
    name
  end

  test "hit, cost, peek, reset, advance" do
    name = start(algorithm: :fixed_window, limit: 3, period: 1000)
    assert Limiter.hit(name, "user") == {:allow, 2}
    assert Limiter.hit(name, "user", 2) == {:allow, 0}
    assert Limiter.hit(name, "user") == {:deny, 1000}
    assert Limiter.peek(name, "user") == {:deny, 1000}
    assert Limiter.reset(name, "user") == :ok
    assert Limiter.peek(name, "user") == {:allow, 3}
    assert Limiter.hit(name, "user", 3) == {:allow, 0}
    assert Limiter.advance(name, 1000) == :ok
    assert Limiter.hit(name, "user") == {:allow, 2}
  end

  test "limits of the call" do
    name = start([])
    assert Limiter.hit(name, "user", 1000, 10) == {:allow, 9}
    assert Limiter.hit(name, "user", 1000, 10, 4) == {:allow, 5}
    assert Limiter.peek(name, "user", 1000, 10) == {:allow, 5}
    assert Limiter.reset(name, "user", 1000) == :ok
    assert Limiter.peek(name, "user", 1000, 10) == {:allow, 10}
  end

  test "whereis, info, delete" do
    name = start(limit: 2, period: 1000)
    handle = Limiter.whereis(name)
    assert Limiter.hit(handle, :key) == {:allow, 1}
    assert %{live: 1, allowed: 1, denied: 0, algorithm: :gcra} = Limiter.info(handle)
    assert Limiter.delete(name) == :ok
    assert Limiter.whereis(name) == nil
    assert_raise ArgumentError, ~r/:limiter, :unknown/, fn -> Limiter.hit(name, :key) end
    assert_raise ArgumentError, ~r/:limiter, :deleted/, fn -> Limiter.hit(handle, :key) end
  end

  test "the table outlives a crash of its owner" do
    name = start(limit: 5, period: 1000)
    assert Limiter.hit(name, :key, 3) == {:allow, 2}
    owner = Limiter.info(name).owner
    monitor = Process.monitor(owner)
    Process.exit(owner, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^owner, :killed}
    assert Limiter.hit(name, :key) == {:allow, 1}
  end

  test "a limit that nodes share, on one of them" do
    for scope <- [:cluster, :cluster_strict] do
      name = start(algorithm: :fixed_window, limit: 3, period: 1000, scope: scope)
      assert {:allow, _} = Limiter.hit(name, "user", 2)
      assert Limiter.peek(name, "user") == {:allow, 1}
      assert Limiter.get(name, "user") == 2
      assert {:allow, _} = Limiter.hit(name, "user")
      assert {:deny, _} = Limiter.hit(name, "user")
      assert Limiter.advance(name, 1000) == :ok
      assert {:allow, _} = Limiter.hit(name, "user", 3)
      assert Limiter.reset(name, "user") == :ok
      assert Limiter.peek(name, "user") == {:allow, 3}

      assert %{scope: ^scope, members: [_], unreachable: 0, allowed: 3, denied: 1} =
               Limiter.info(name)

      assert_raise ArgumentError, ~r/not_local/, fn -> Limiter.hit_all([{name, "user", 1}]) end
    end
  end

  test "bad options are named" do
    assert Limiter.start_link(limit: 1, period: 1000) == {:error, {:badarg, {:name, :not_a_name}}}

    assert Limiter.start_link(name: :ex_bad, limit: 1, perod: 1000) ==
             {:error, {:badarg, {:perod, :unknown_option}}}

    assert Limiter.start_link(name: :ex_bad, limit: 1.5, period: 1000) ==
             {:error, {:badarg, {:limit, :not_an_integer}}}

    assert Limiter.start_link(name: :ex_bad, persist: true) ==
             {:error, {:badarg, {:persist, :not_a_path}}}
  end
end
