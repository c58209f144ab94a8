defmodule Foundation.Native.Limiter.HammerTest do
  # What Hammer 7 promises of its ETS backend (its documentation and its own tests), asked of `use Foundation.Native.Limiter`.
  use ExUnit.Case, async: true

  alias Foundation.Native.Limiter

  # The line that changes: `use Hammer, backend: :ets`.
  defmodule RateLimit do
    use Foundation.Native.Limiter, backend: :ets
  end

  defmodule PerKey do
    use Foundation.Native.Limiter, backend: :ets, algorithm: :fix_window_per_key, clock: :manual
  end

  defmodule Sliding do
    use Foundation.Native.Limiter, algorithm: :sliding_window, clock: :manual
  end

  defmodule Leaky do
    use Foundation.Native.Limiter, algorithm: :leaky_bucket, clock: :manual
  end

  defmodule Token do
    use Foundation.Native.Limiter, algorithm: :token_bucket, clock: :manual
  end

  defmodule Plain do
    use Foundation.Native.Limiter
  end

  describe "hit, as in Hammer's tests" do
    setup do
      start_supervised!(RateLimit)
      :ok
    end

    test "counts up within the limit" do
      for n <- 1..4, do: assert({:allow, ^n} = RateLimit.hit("key", :timer.minutes(10), 10))
    end

    test "denies what exceeds it, with the time to wait" do
      scale = :timer.minutes(10)
      assert {:allow, 1} = RateLimit.hit("key", scale, 2)
      assert {:allow, 2} = RateLimit.hit("key", scale, 2)
      assert {:deny, retry_after} = RateLimit.hit("key", scale, 2)
      # A coarse clock adds its tick.
      assert retry_after in 1..(scale + 100)
      assert {:deny, _} = RateLimit.hit("key", scale, 2)
    end

    test "with an increment, and mixed with the default" do
      scale = :timer.minutes(10)
      assert {:allow, 4} = RateLimit.hit("cost", scale, 10, 4)
      assert {:allow, 9} = RateLimit.hit("cost", scale, 10, 5)
      assert {:deny, _} = RateLimit.hit("cost", scale, 10, 3)

      assert {:allow, 3} = RateLimit.hit("mixed", scale, 10, 3)
      assert {:allow, 4} = RateLimit.hit("mixed", scale, 10)
      assert {:allow, 5} = RateLimit.hit("mixed", scale, 10, 1)
      assert {:allow, 9} = RateLimit.hit("mixed", scale, 10, 4)
      assert {:allow, 10} = RateLimit.hit("mixed", scale, 10, 1)
      assert {:deny, _} = RateLimit.hit("mixed", scale, 10, 2)
    end

    test "keys of any term; a scale of its own each" do
      scale = :timer.minutes(10)

      for key <- [:atom, {:user, 1}, 7, [1, 2], %{a: 1}, "text", 1.5] do
        assert {:allow, 1} = RateLimit.hit(key, scale, 10)
        assert {:allow, 2} = RateLimit.hit(key, scale, 10)
        assert {:allow, 1} = RateLimit.hit(key, 2 * scale, 10)
      end
    end

    test "an increment above the limit is denied, nothing is always allowed" do
      scale = :timer.minutes(10)
      assert RateLimit.hit("key", scale, 5, 6) == {:deny, scale}
      assert RateLimit.hit("key", scale, 5, 0) == {:allow, 0}
      assert {:allow, 5} = RateLimit.hit("key", scale, 5, 5)
      assert RateLimit.hit("key", scale, 5, 0) == {:allow, 5}
      assert {:deny, _} = RateLimit.hit("key", scale, 5, 6)
      assert RateLimit.inc("key", scale) == 6
      assert {:deny, _} = RateLimit.hit("key", scale, 5, 0)
      assert {:deny, _} = RateLimit.hit("key", scale, 0)
    end
  end

  describe "inc, get, set, as in Hammer's tests" do
    setup do
      start_supervised!(RateLimit)
      :ok
    end

    test "inc counts, get tells" do
      scale = :timer.minutes(10)
      assert RateLimit.get("key", scale) == 0

      for n <- 1..4 do
        assert RateLimit.inc("key", scale) == n
        assert RateLimit.get("key", scale) == n
      end

      assert RateLimit.inc("key", scale, 6) == 10
      assert {:deny, _} = RateLimit.hit("key", scale, 10)
    end

    test "get returns the count set" do
      scale = :timer.minutes(10)
      assert RateLimit.get("key", scale) == 0
      assert RateLimit.set("key", scale, 10) == 10
      assert RateLimit.get("key", scale) == 10
      assert {:deny, _} = RateLimit.hit("key", scale, 10)
      assert RateLimit.set("key", scale, 0) == 0
      assert {:allow, 1} = RateLimit.hit("key", scale, 10)
    end

    test "expires_at" do
      scale = :timer.minutes(10)
      assert RateLimit.expires_at("key", scale) == 0
      assert {:allow, 1} = RateLimit.hit("key", scale, 10)
      before = System.system_time(:millisecond)
      expires_at = RateLimit.expires_at("key", scale)
      assert expires_at > before
      assert expires_at <= before + scale + 60_000
    end
  end

  describe "windows and their time" do
    test "a window is the key's own, and ends" do
      start_supervised!(PerKey)
      assert PerKey.hit("a", 1000, 2) == {:allow, 1}
      :ok = Limiter.advance(PerKey, 400)
      assert PerKey.hit("b", 1000, 2) == {:allow, 1}
      assert PerKey.hit("a", 1000, 2) == {:allow, 2}
      assert PerKey.hit("a", 1000, 2) == {:deny, 600}
      # Denied hits do not count.
      assert PerKey.get("a", 1000) == 2
      :ok = Limiter.advance(PerKey, 600)
      assert PerKey.get("a", 1000) == 0
      assert PerKey.expires_at("a", 1000) == 0
      assert PerKey.hit("a", 1000, 2) == {:allow, 1}
      assert PerKey.hit("b", 1000, 2) == {:allow, 2}
      assert PerKey.hit("b", 1000, 2) == {:deny, 400}
      # What was counted beyond a smaller limit is denied under it.
      assert PerKey.hit("b", 1000, 1) == {:deny, 400}
      assert PerKey.inc("a", 1000) == 2
      :ok = Limiter.advance(PerKey, 1000)
      assert PerKey.inc("a", 1000) == 1
    end

    test "sliding_window" do
      start_supervised!(Sliding)
      for n <- 1..10, do: assert(Sliding.hit("key", 1000, 10) == {:allow, n})
      assert {:deny, ms} = Sliding.hit("key", 1000, 10)
      :ok = Limiter.advance(Sliding, ms)
      assert {:allow, 10} = Sliding.hit("key", 1000, 10)
      assert Sliding.get("key", 1000) == 10
      refute function_exported?(Sliding, :expires_at, 2)
    end
  end

  describe "buckets" do
    test "leaky_bucket tells its level" do
      start_supervised!(Leaky)
      for n <- 1..10, do: assert(Leaky.hit("key", 2, 10) == {:allow, n})
      assert Leaky.hit("key", 2, 10) == {:deny, 500}
      assert Leaky.get("key", 2, 10) == 10
      assert Leaky.hit("key", 2, 10, 0) == {:allow, 10}
      :ok = Limiter.advance(Leaky, 1500)
      assert Leaky.get("key", 2, 10) == 7
      assert Leaky.hit("key", 2, 10, 3) == {:allow, 10}
    end

    test "token_bucket tells what is left" do
      start_supervised!(Token)
      assert Token.hit("key", 2, 10, 3) == {:allow, 7}
      assert Token.hit("key", 2, 10, 4) == {:allow, 3}
      assert {:deny, 500} = Token.hit("key", 2, 10, 4)
      assert Token.hit("key", 2, 10, 2) == {:allow, 1}
      assert Token.get("key", 2, 10) == 1
      assert Token.hit("key", 2, 10, 0) == {:allow, 1}
      assert Token.hit("key", 2, 10) == {:allow, 0}
      # The real time until the cost is there, as Hammer tells it since 7.5.
      assert Token.hit("other", 55, 10, 10) == {:allow, 0}
      assert Token.hit("other", 55, 10, 1) == {:deny, 19}
      assert Token.hit("other", 55, 10, 5) == {:deny, 91}
      assert Token.hit("other", 1, 10, 11) == {:deny, 11_000}
      :ok = Limiter.advance(Token, 91)
      assert Token.hit("other", 55, 10, 5) == {:allow, 0}
    end

    test "have no counts to set, and get wants the rate" do
      start_supervised!(Leaky)
      assert_raise ArgumentError, ~r/get\(key, rate, capacity\)/, fn -> Leaky.get("key", 1000) end
      refute function_exported?(Leaky, :inc, 3)
      refute function_exported?(Leaky, :set, 3)

      for bad <- [0, -1, 1.0, "1", nil] do
        assert_raise ArgumentError, ~r/positive integers/, fn -> Leaky.hit("key", bad, 10) end
        assert_raise ArgumentError, ~r/positive integers/, fn -> Leaky.hit("key", 10, bad) end
        assert_raise ArgumentError, ~r/positive integers/, fn -> Leaky.get("key", bad, 10) end
      end

      assert_raise ArgumentError, ~r/:cost/, fn -> Leaky.hit("key", 1, 10, -1) end
      assert_raise ArgumentError, ~r/:cost/, fn -> Leaky.hit("key", 1, 10, 1.0) end
    end
  end

  describe "concurrency" do
    test "callers get counts of their own, and no more than the limit" do
      start_supervised!(RateLimit)
      scale = :timer.hours(24)

      answers =
        1..8
        |> Task.async_stream(fn _ -> for _ <- 1..500, do: RateLimit.hit("key", scale, 3000) end)
        |> Enum.flat_map(fn {:ok, answers} -> answers end)

      counts = for {:allow, count} <- answers, do: count
      assert Enum.sort(counts) == Enum.to_list(1..3000)
      assert length(for {:deny, _} <- answers, do: 1) == 1000
      assert RateLimit.get("key", scale) == 3000
    end

    test "increments are not lost" do
      start_supervised!(RateLimit)
      scale = :timer.hours(24)

      counts =
        1..8
        |> Task.async_stream(fn _ -> for _ <- 1..500, do: RateLimit.inc("key", scale, 2) end)
        |> Enum.flat_map(fn {:ok, counts} -> counts end)

      assert Enum.sort(counts) == Enum.map(1..4000, &(2 * &1))
    end
  end

  describe "start" do
    test "child_spec and start_link have Hammer's shapes" do
      assert Plain.child_spec(clean_period: 1) ==
               %{id: Plain, start: {Plain, :start_link, [[clean_period: 1]]}, type: :worker}

      assert {:ok, pid} =
               Plain.start_link(clean_period: 60_000, key_older_than: 1, table: :t, capacity: 10)

      assert %{owner: ^pid, capacity: 10, algorithm: :fixed_window} = Limiter.info(Plain)
      assert {:error, {:already_started, ^pid}} = Plain.start_link([])
      assert Limiter.delete(Plain) == :ok
    end

    test "options of the limiter are options of the module" do
      file =
        Path.join(
          System.tmp_dir!(),
          "fdn-hammer-#{System.pid()}-#{System.unique_integer([:positive])}"
        )

      on_exit(fn -> File.rm(file) end)

      [{module, _}] =
        Code.compile_string("""
        defmodule #{inspect(__MODULE__)}.Kept do
          use Foundation.Native.Limiter, algorithm: :token_bucket, capacity: 10
        end
        """)

      options = [persist: file, telemetry: true]
      start_supervised!({module, options})
      assert %{capacity: 10, telemetry: true, algorithm: :gcra} = Limiter.info(module)
      assert module.hit("key", 1, 3600, 3600) == {:allow, 0}
      :ok = stop_supervised!(module)
      # A restart forgets nothing.
      start_supervised!({module, options})
      assert {:deny, _} = module.hit("key", 1, 3600, 3600)
    end

    test "what cannot be is an error" do
      assert Plain.start_link(before_clean: &IO.inspect/2) ==
               {:error, {:badarg, {:before_clean, :unknown_option}}}

      assert Plain.start_link(algorithm: :sliding_window) ==
               {:error, {:badarg, {:algorithm, :differs_from_use}}}

      assert Plain.start_link(limit: 1, period: 1) ==
               {:error, {:badarg, {:limit, :given_with_each_hit}}}

      assert Plain.start_link(name: :other) ==
               {:error, {:badarg, {:name, :given_with_each_hit}}}

      assert Plain.start_link(capacity: 0) == {:error, {:badarg, {:capacity, :out_of_range}}}
    end

    test "what cannot be used is a compile error that says so" do
      compile = fn options ->
        Code.compile_string(
          "defmodule #{inspect(__MODULE__)}.Bad do use Foundation.Native.Limiter, #{options} end"
        )
      end

      assert_raise ArgumentError, ~r/unknown algorithm :gcra.*:fix_window/, fn ->
        compile.("algorithm: :gcra")
      end

      assert_raise ArgumentError, ~r/no option :limit/, fn -> compile.("limit: 5") end
      assert_raise ArgumentError, ~r/keyword list/, fn -> compile.("[1]") end
    end

    test "start_link may be overridden" do
      [{module, _}] =
        Code.compile_string("""
        defmodule #{inspect(__MODULE__)}.Own do
          use Foundation.Native.Limiter
          def start_link(_), do: super(capacity: 7)
        end
        """)

      assert {:ok, _} = module.start_link([])
      assert %{capacity: 7} = Limiter.info(module)
    end
  end

  describe "bad arguments" do
    test "are named" do
      start_supervised!(RateLimit)

      for {argument, call} <- [
            {:period, fn bad -> RateLimit.hit("key", bad, 10) end},
            {:limit, fn bad -> RateLimit.hit("key", 1000, bad) end},
            {:cost, fn bad -> RateLimit.hit("key", 1000, 10, bad) end},
            {:period, fn bad -> RateLimit.get("key", bad) end},
            {:period, fn bad -> RateLimit.inc("key", bad) end},
            {:n, fn bad -> RateLimit.inc("key", 1000, bad) end},
            {:count, fn bad -> RateLimit.set("key", 1000, bad) end}
          ],
          bad <- [-1, 1.0, "1", nil, :infinity, -(2 ** 80)] do
        assert_raise ArgumentError, ~r/#{inspect(argument)}/, fn -> call.(bad) end
      end

      assert_raise ArgumentError, ~r/:limit, :out_of_range/, fn ->
        RateLimit.hit("key", 1000, 2 ** 80)
      end

      assert {:deny, 1000} = RateLimit.hit("key", 1000, 10, 2 ** 80)
    end

    test "a limiter that is not started" do
      assert_raise ArgumentError, ~r/:limiter, :unknown/, fn -> Plain.hit("key", 1000, 1) end
    end
  end
end
