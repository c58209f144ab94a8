defmodule Foundation.Native.SentinelTest do
  use ExUnit.Case, async: false

  alias Foundation.Native.{Flags, Sentinel}

  doctest Foundation.Native.Sentinel

  setup_all do
    unless Node.alive?() do
      System.cmd("epmd", ["-daemon"])
      {:ok, _} = Node.start(:"fdn_ex_#{System.pid()}", :shortnames)
    end

    start_supervised!({Sentinel, []})
    {:ok, node: node()}
  end

  test "watches by keyword list, trips, and is rearmed", %{node: node} do
    :ok = Flags.declare(:ex_watched, group: :ex_watched_group, default: true)
    :ok = Flags.subscribe()

    spec = [
      process: :ex_victim,
      group: :ex_watched_group,
      policy: [failures: {2, 60_000}, probe: [every: 60_000]]
    ]

    assert :ok = Sentinel.watch(:ex_watch, spec)

    assert %{ex_watch: %{node: ^node, spec: %{policy: %{probe: %{every: 60_000}}}}} =
             Sentinel.watches()

    for _ <- 1..2 do
      pid =
        spawn(fn ->
          Process.register(self(), :ex_victim)
          receive do: (:crash -> exit(:boom))
        end)

      await_armed(1_000)
      send(pid, :crash)
      ref = Process.monitor(pid)
      assert_receive {:DOWN, ^ref, _, _, _}, 20_000
    end

    assert_receive {:foundation_flags, :rolled_back, :ex_watched_group, epoch,
                    "watch ex_watch: exit: boom"},
                   20_000

    refute Flags.enabled?(:ex_watched)
    assert [%{event: :rollback, epoch: ^epoch}] = Sentinel.events(limit: 1)
    assert %{trips: 1} = Sentinel.metrics()
    assert :ok = Sentinel.rearm(:ex_watched_group, epoch)
    assert :ok = Sentinel.unwatch(:ex_watch)
    assert :ok = Flags.unsubscribe()
  end

  test "says what it does not like" do
    assert {:error, {:badarg, {:group, :missing}}} = Sentinel.watch(:w, process: :a)
    assert {:error, {:badarg, {:spec, :not_a_map}}} = Sentinel.watch(:w, :nothing)

    assert {:error, {:badarg, {:retries, :unknown}}} =
             Sentinel.watch(:w, group: :default, policy: %{probe: [retries: 1]})

    assert {:error, {:unknown_group, :ex_nowhere}} = Sentinel.rollback(:ex_nowhere, "why")
    assert {:error, :unknown_watch} = Sentinel.unwatch(:ex_nowhere)
  end

  test "is a hidden node that answers pings", %{node: node} do
    assert Sentinel.running?()
    assert %{nodes: %{^node => %{state: :up}}, mode: :port} = Sentinel.status()
    assert :pong = :net_adm.ping(Sentinel.sentinel_node())
    assert Sentinel.sentinel_node() in Node.list(:hidden)
  end

  # A process that is not there yet is asked for again with a growing pause; each of our questions is a round trip to the sentinel.
  defp await_armed(0), do: flunk("never armed")

  defp await_armed(tries) do
    unless Sentinel.watches().ex_watch.state == :armed do
      receive do
      after
        10 -> await_armed(tries - 1)
      end
    end
  end
end
