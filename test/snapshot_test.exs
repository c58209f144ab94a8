defmodule Foundation.Native.SnapshotTest do
  use ExUnit.Case, async: true

  alias Foundation.Native.Snapshot

  setup do
    dir =
      Path.join(
        System.tmp_dir!(),
        "fdn-snapshot-#{System.pid()}-#{System.unique_integer([:positive])}"
      )

    on_exit(fn -> File.rm_rf!(dir) end)
    %{dir: dir, name: :"snapshot_ex_#{System.unique_integer([:positive])}"}
  end

  defp await(fun) do
    unless fun.() do
      receive do
      after
        1 -> await(fun)
      end
    end
  end

  test "save, load, update, commit, and all of it after closing", %{dir: dir, name: name} do
    {:ok, store} = Snapshot.open(name, path: dir)
    {:ok, saved} = Snapshot.save(store, {:agent, 1}, %{queue: [1, 2]})
    assert {:ok, ^saved} = Snapshot.load(name, {:agent, 1})
    {:ok, newer} = Snapshot.update(store, {:agent, 1}, saved, %{queue: [2]})
    version = Snapshot.version(newer)

    assert {:error, {:conflict, ^version}} =
             Snapshot.update(store, {:agent, 1}, saved, %{queue: []})

    assert {:ok, last} =
             Snapshot.update(store, {:agent, 1}, saved, %{queue: []}, stale: :overwrite)

    assert {:ok, [_, _]} =
             Snapshot.commit(store, [
               {:update, {:agent, 1}, last, %{}},
               {:put, {:result, 1}, "done"}
             ])

    assert {:error, {:conflict, {:result, 1}}} =
             Snapshot.commit(store, [{:expect, {:result, 1}, :absent}, {:delete, {:agent, 1}}])

    assert %{keys: 2, read_only: false} = Snapshot.info(store)
    :ok = Snapshot.close(store)
    {:ok, store} = Snapshot.open(name, path: dir)
    assert {:ok, saved} = Snapshot.load(store, {:result, 1})
    assert Snapshot.value(saved) == "done"
    :ok = Snapshot.close(store)
  end

  test "the ets-like calls", %{dir: dir, name: name} do
    {:ok, store} = Snapshot.open(name, path: dir, durability: {:interval, 50})
    assert Snapshot.insert(store, [{:a, 1}, {:b, 2, 3}])
    assert Snapshot.lookup(store, :b) == [{:b, 2, 3}]
    assert Snapshot.member?(store, :a)
    refute Snapshot.member?(store, :c)
    assert Snapshot.delete(store, :a)
    assert Snapshot.tab2list(store) == [{:b, 2, 3}]
    assert Snapshot.foldl(store, 0, fn object, n -> n + tuple_size(object) end) == 3
    assert Snapshot.sync(store) == :ok
    assert Snapshot.save!(store, :c, 1) |> Snapshot.value() == 1
    :ok = Snapshot.close(store)
  end

  test "under a supervisor", %{dir: dir, name: name} do
    owner = start_supervised!({Snapshot, name: name, path: dir, durability: :sync})
    assert {:ok, saved} = Snapshot.save(name, :k, :v)
    Process.exit(owner, :kill)
    await(fn -> Snapshot.info(name).owner != owner end)
    assert {:ok, _} = Snapshot.update(name, :k, saved, :w)
    :ok = stop_supervised({Snapshot, name})
    assert Snapshot.whereis(name) == nil
  end

  test "what is wrong is named", %{dir: dir, name: name} do
    assert Snapshot.open(name, path: dir, durability: :fast) ==
             {:error, {:badarg, {:durability, :unknown_value}}}

    assert Snapshot.open(name, path: dir, encryption_key: "k") ==
             {:error, {:badarg, {:encryption_key, :not_supported}}}

    assert_raise ArgumentError, ~r/store.*not_open/, fn -> Snapshot.load(name, :k) end
  end
end
