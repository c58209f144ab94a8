defmodule Foundation.Native.FlagsTest do
  use ExUnit.Case, async: false

  alias Foundation.Native.Flags

  # The doctest's flag and group are its own: the file lives as long as the VM.
  doctest Foundation.Native.Flags

  test "flags, groups and what is known of them" do
    assert :ok = Flags.declare(:ex_a, group: :ex_g, default: true, description: "from Elixir")
    assert :ok = Flags.declare(:ex_b, %{group: :ex_g})
    assert Flags.enabled?(:ex_a)
    refute Flags.enabled?(:ex_b)
    assert nil == Flags.get(:ex_nobody_knows)
    assert nil == Flags.info(:ex_nobody_knows)
    assert :ok = Flags.set!(:ex_b, {:percentage, 50})
    assert {:percentage, 50} = Flags.get(:ex_b)
    assert Flags.enabled_for?(:ex_b, "me") == :erlang.phash2({:ex_b, "me"}, 100) < 50
    assert :ok = Flags.set_percentage(:ex_b, 0)
    assert :ok = Flags.enable(:ex_b)
    assert :ok = Flags.disable(:ex_b)
    assert %{ex_a: true, ex_b: false} = Flags.list()
    assert %{description: "from Elixir", group: :ex_g, default: true} = Flags.info(:ex_a)
    assert %{ex_g: %{state: :armed, reason: nil, at: nil, flags: [:ex_a, :ex_b]}} = Flags.groups()
    assert %{faulted: false, guarded: true} = Flags.info()
  end

  test "a rollback holds until it is rearmed, and subscribers hear of it" do
    assert :ok = Flags.declare(:ex_c, group: :ex_h, default: true)
    assert :ok = Flags.subscribe()

    assert {:ok, %{epochs: %{ex_h: epoch}, flags: [:ex_c], nodes: nodes}} =
             Flags.rollback(:ex_h, "why")

    assert nodes == %{node() => :ok}
    assert_receive {:foundation_flags, :rolled_back, :ex_h, ^epoch, "why"}, 20_000
    refute Flags.enabled?(:ex_c)
    assert {:error, :rolled_back} = Flags.set(:ex_c, true)
    assert_raise RuntimeError, ~r/ex_c.*rolled_back/, fn -> Flags.set!(:ex_c, true) end
    assert {:error, :stale_epoch} = Flags.rearm(:ex_h, epoch - 1 + 2)
    assert :ok = Flags.rearm(:ex_h, epoch)
    assert :ok = Flags.unsubscribe()
    assert {:error, :unknown_group} = Flags.rollback(:ex_nothing, "why", 100)
  end

  test "misuse names the argument" do
    assert_raise ArgumentError, "argument error: {:flag, :not_an_atom}", fn ->
      Flags.enabled?("a")
    end

    assert_raise ArgumentError, "argument error: {:grop, :unknown_option}", fn ->
      Flags.declare(:ex_a, grop: :a)
    end
  end
end
