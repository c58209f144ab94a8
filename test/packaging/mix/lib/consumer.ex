defmodule Consumer do
  # The Elixir side of ../rebar3/src/consumer.erl.in: each part once, from a started application.
  use Application

  alias Foundation.Native.{Flags, Limiter, Sentinel, Snapshot}

  @impl true
  def start(_type, _args) do
    if System.get_env("CONSUMER_DIR"), do: spawn(&main/0)
    Supervisor.start_link([], strategy: :one_for_one)
  end

  def main do
    check(System.fetch_env!("CONSUMER_DIR"))
    IO.puts("consumer: ok")
    System.stop(0)
  rescue
    error ->
      IO.puts("consumer: failed " <> Exception.format(:error, error, __STACKTRACE__))
      System.halt(1)
  end

  defp check(dir) do
    {:ok, _} = Limiter.start_link(name: :consumer_limiter, limit: 2, period: 60_000, capacity: 100)
    {:allow, 1} = Limiter.hit(:consumer_limiter, :key)
    {:allow, 0} = Limiter.hit(:consumer_limiter, :key)
    {:deny, _} = Limiter.hit(:consumer_limiter, :key)

    value = %{text: "kept", list: [1, 2, 3]}
    {:ok, store} = Snapshot.open(:consumer_store, path: Path.join(dir, "store"))
    {:ok, _} = Snapshot.save(store, :key, value)
    :ok = Snapshot.close(store)
    {:ok, store} = Snapshot.open(:consumer_store, path: Path.join(dir, "store"))
    {:ok, saved} = Snapshot.load(store, :key)
    ^value = Snapshot.value(saved)
    :ok = Snapshot.close(store)

    :ok = Flags.declare(:consumer_flag, group: :consumer)
    false = Flags.enabled?(:consumer_flag)
    :ok = Flags.set(:consumer_flag, true)
    true = Flags.enabled?(:consumer_flag)

    program = to_string(:foundation_nif.priv_file("foundation_sentinel"))
    {version, 0} = System.cmd(program, ["--version"])
    true = version =~ to_string(Application.spec(:foundation_native, :vsn))
    {:ok, _} = Sentinel.start_link([])
    %{} = Sentinel.status()
    {:ok, _epoch} = Sentinel.rollback(:consumer, "packaging test")
    false = Flags.enabled?(:consumer_flag)
  end
end
