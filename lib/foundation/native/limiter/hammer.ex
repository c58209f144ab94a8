defmodule Foundation.Native.Limiter.Hammer do
  @moduledoc """
  What `use Foundation.Native.Limiter` makes: a module with the function names and return shapes of
  [Hammer](https://hexdocs.pm/hammer) 7, over a native limiter of its own name.

      defmodule MyApp.RateLimit do
        use Foundation.Native.Limiter        # was: use Hammer, backend: :ets
      end

      children = [{MyApp.RateLimit, clean_period: :timer.minutes(1)}]

      case MyApp.RateLimit.hit("upload:" <> user_id, :timer.minutes(1), 100) do
        {:allow, count} -> ...
        {:deny, retry_after_ms} -> ...
      end

  ## Algorithms

  | `algorithm:` | here | `hit(key, a, b)` is |
  |---|---|---|
  | `:fix_window` (default), `:fix_window_per_key` | `:fixed_window` | scale in ms, limit |
  | `:sliding_window` | `:sliding_window` | scale in ms, limit |
  | `:leaky_bucket`, `:token_bucket` | `:gcra` | units a second, capacity |

  Windows have `hit/3,4`, `inc/2,3`, `set/3`, `get/2` and (not `:sliding_window`) `expires_at/2`. Buckets have `hit/3,4`, which give the
  level of the leaky bucket and the tokens left in the other, and `get/3`.

  ## What is different

    * Calls are atomic: concurrent callers of one key are told different counts, and no more than `limit` are allowed, ever.
    * Denied hits do not count. `get/2` never exceeds the limit because of them, and a key that is hit without pause recovers.
    * A window opens with the first hit of its key, as Hammer's `:fix_window_per_key` has it, and not at multiples of the scale since 1970.
      `:sliding_window` is the weighted two-window counter, not a log: its counts are estimates, rounded up.
    * A table has a `:capacity` (100000 keys) and never grows. Should it be full all the same, `:on_full` decides; by default the entry
      with the least consumed budget goes. There is nothing to clean: `:clean_period`, `:key_older_than`, `:table`, `:backend` and the
      options of a `GenServer` are accepted and have no effect. `:before_clean` is refused, as it would never be called.
    * A crash of the owner loses no counts.
    * A bucket's budget belongs to its key, rate and capacity together, so `get/3` wants them, and `get/2` raises. The time in which it
      drains, capacity / rate, is rounded up to milliseconds. The time after `:deny` is the real one.
    * Scale, limit and counts have ranges (`:foundation_limiter`: 366 days; 16777214, and less for a short `:sliding_window`). Outside
      them, and for what is no integer, an `ArgumentError` names the argument; the scale is called `period` there, the increment `cost`.

  Further options, of `use` or of `start_link/1`: `:capacity`, `:on_full`, `:clock`, `:telemetry`, and the others of
  `:foundation_limiter.start_link/2` that are not about a preset limit. With `scope: :cluster` the counts that `hit` gives are at most too
  high: what a node was lent counts as used.
  """

  @windows [
    fix_window: :fixed_window,
    fix_window_per_key: :fixed_window,
    sliding_window: :sliding_window
  ]
  @buckets [leaky_bucket: :gcra, token_bucket: :gcra]
  @algorithms @windows ++ @buckets
  @no_effect [:backend, :table, :clean_period, :key_older_than, :debug, :spawn_opt] ++
               [:hibernate_after, :timeout]
  @preset [:name, :limit, :period, :burst]

  @type count :: non_neg_integer
  @type answer :: {:allow, count} | {:deny, retry_after_ms :: non_neg_integer}

  @doc false
  defmacro module(options) do
    quote bind_quoted: [options: options] do
      {algorithm, defaults} = Foundation.Native.Limiter.Hammer.options!(options)
      @foundation_limiter defaults

      @doc "For a supervisor."
      @spec child_spec(keyword) :: Supervisor.child_spec()
      def child_spec(options) do
        %{id: __MODULE__, start: {__MODULE__, :start_link, [options]}, type: :worker}
      end

      @doc "Starts the owner of the limiter, which has the name of this module."
      @spec start_link(keyword) :: {:ok, pid} | {:error, term}
      def start_link(options) do
        Foundation.Native.Limiter.Hammer.start_link(__MODULE__, @foundation_limiter, options)
      end

      defoverridable child_spec: 1, start_link: 1

      if algorithm in [:leaky_bucket, :token_bucket] do
        @doc "A hit of `cost` units, at `rate` units a second and up to `capacity` at once."
        @spec hit(term, rate :: pos_integer, capacity :: pos_integer, cost :: non_neg_integer) ::
                Foundation.Native.Limiter.Hammer.answer()
        def hit(key, rate, capacity, cost \\ 1) do
          Foundation.Native.Limiter.Hammer.hit_bucket(
            __MODULE__,
            unquote(algorithm),
            key,
            rate,
            capacity,
            cost
          )
        end

        @doc false
        def get(_key, _scale) do
          raise ArgumentError, "the level of a bucket needs its rate: get(key, rate, capacity)"
        end

        @doc "The level of the leaky bucket, or the tokens left in the other."
        @spec get(term, rate :: pos_integer, capacity :: pos_integer) ::
                Foundation.Native.Limiter.Hammer.count()
        def get(key, rate, capacity) do
          Foundation.Native.Limiter.Hammer.get_bucket(
            __MODULE__,
            unquote(algorithm),
            key,
            rate,
            capacity
          )
        end
      else
        @doc "A hit of `increment` units: `limit` of them are allowed in `scale` milliseconds."
        @spec hit(term, scale :: pos_integer, limit :: pos_integer, increment :: non_neg_integer) ::
                Foundation.Native.Limiter.Hammer.answer()
        def hit(key, scale, limit, increment \\ 1) do
          Foundation.Native.Limiter.Hammer.hit(__MODULE__, key, scale, limit, increment)
        end

        @doc "Counts units whatever the limit, and gives the new count."
        @spec inc(term, scale :: pos_integer, increment :: non_neg_integer) ::
                Foundation.Native.Limiter.Hammer.count()
        def inc(key, scale, increment \\ 1) do
          :foundation_limiter.inc(__MODULE__, key, scale, increment)
        end

        @doc "Sets the count."
        @spec set(term, scale :: pos_integer, Foundation.Native.Limiter.Hammer.count()) ::
                Foundation.Native.Limiter.Hammer.count()
        def set(key, scale, count) do
          :foundation_limiter.set(__MODULE__, key, scale, count)
        end

        @doc "The count."
        @spec get(term, scale :: pos_integer) :: Foundation.Native.Limiter.Hammer.count()
        def get(key, scale) do
          :foundation_limiter.get(__MODULE__, key, scale)
        end

        if algorithm != :sliding_window do
          @doc "When the key's window ends, in the milliseconds of `System.system_time/1`; 0 where none is open."
          @spec expires_at(term, scale :: pos_integer) :: non_neg_integer
          def expires_at(key, scale) do
            Foundation.Native.Limiter.Hammer.expires_at(__MODULE__, key, scale)
          end
        end
      end
    end
  end

  @doc false
  def options!(options) do
    unless Keyword.keyword?(options) do
      raise ArgumentError, "use Foundation.Native.Limiter: options are a keyword list"
    end

    {algorithm, rest} = Keyword.pop(options, :algorithm, :fix_window)

    unless Keyword.has_key?(@algorithms, algorithm) do
      raise ArgumentError,
            "use Foundation.Native.Limiter: unknown algorithm #{inspect(algorithm)}; " <>
              "there are #{inspect(Keyword.keys(@algorithms))}"
    end

    for {option, _} <- rest, option in @preset do
      raise ArgumentError,
            "use Foundation.Native.Limiter: no option #{inspect(option)}; the module is the name, and each hit has its limit"
    end

    {algorithm, [algorithm: algorithm] ++ rest}
  end

  @doc false
  def start_link(name, defaults, options) do
    algorithm = defaults[:algorithm]

    case Keyword.pop(options, :algorithm, algorithm) do
      {^algorithm, rest} ->
        defaults
        |> Keyword.put(:algorithm, @algorithms[algorithm])
        |> Keyword.merge(rest)
        |> Keyword.drop(@no_effect)
        |> Map.new()
        |> start_link(name)

      _ ->
        {:error, {:badarg, {:algorithm, :differs_from_use}}}
    end
  end

  defp start_link(options, name) do
    case Enum.find(@preset, &is_map_key(options, &1)) do
      nil -> :foundation_limiter.start_link(name, options)
      option -> {:error, {:badarg, {option, :given_with_each_hit}}}
    end
  end

  @doc false
  def hit(limiter, key, scale, limit, increment)
      when is_integer(limit) and is_integer(increment) and increment >= 1 and increment <= limit do
    case :foundation_limiter.hit(limiter, key, scale, limit, increment) do
      {:allow, remaining} -> {:allow, limit - remaining}
      denied -> denied
    end
  end

  # More than the limit is never allowed; it is no mistake, as Hammer has it.
  def hit(limiter, key, scale, limit, increment)
      when is_integer(limit) and is_integer(increment) and increment > limit do
    case :foundation_limiter.peek(limiter, key, scale, limit) do
      {:allow, _} -> {:deny, scale}
      denied -> denied
    end
  end

  # Nothing is allowed while no more than the limit is counted.
  def hit(limiter, key, scale, limit, 0) do
    case :foundation_limiter.peek(limiter, key, scale, limit) do
      {:allow, remaining} ->
        {:allow, limit - remaining}

      denied ->
        count = :foundation_limiter.get(limiter, key, scale)
        if count <= limit, do: {:allow, count}, else: denied
    end
  end

  # Not a limit or not an increment: the native call says which.
  def hit(limiter, key, scale, limit, increment) do
    :foundation_limiter.hit(limiter, key, scale, limit, increment)
  end

  @doc false
  # The end of the window is when a limit of 1 would admit again.
  def expires_at(limiter, key, scale) do
    case :foundation_limiter.peek(limiter, key, scale, 1) do
      {:allow, _} -> 0
      {:deny, ms} -> System.system_time(:millisecond) + ms
    end
  end

  @doc false
  def hit_bucket(limiter, kind, key, rate, capacity, cost) do
    period = drain_ms(rate, capacity)

    cond do
      cost === 0 ->
        {:allow, told(kind, remaining(limiter, key, period, capacity), capacity)}

      is_integer(cost) and cost > capacity ->
        {:deny, div(cost * 1000 + rate - 1, rate)}

      true ->
        case :foundation_limiter.hit(limiter, key, period, capacity, cost) do
          {:allow, remaining} -> {:allow, told(kind, remaining, capacity)}
          denied -> denied
        end
    end
  end

  @doc false
  def get_bucket(limiter, kind, key, rate, capacity) do
    told(kind, remaining(limiter, key, drain_ms(rate, capacity), capacity), capacity)
  end

  defp remaining(limiter, key, period, capacity) do
    case :foundation_limiter.peek(limiter, key, period, capacity) do
      {:allow, remaining} -> remaining
      {:deny, _} -> 0
    end
  end

  defp told(:leaky_bucket, remaining, capacity), do: capacity - remaining
  defp told(:token_bucket, remaining, _capacity), do: remaining

  defp drain_ms(rate, capacity)
       when is_integer(rate) and is_integer(capacity) and rate > 0 and capacity > 0 do
    div(capacity * 1000 + rate - 1, rate)
  end

  defp drain_ms(rate, capacity) do
    raise ArgumentError,
          "rate and capacity are positive integers, not #{inspect(rate)} and #{inspect(capacity)}"
  end
end
