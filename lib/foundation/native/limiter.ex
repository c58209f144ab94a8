defmodule Foundation.Native.Limiter do
  @moduledoc """
  Rate limiter over one native table: an atomic compare-and-swap a hit, memory that never grows, never more admissions than the
  sequential algorithm would give.

      children = [{Foundation.Native.Limiter, name: :api, limit: 100, period: :timer.seconds(1), burst: 20}]

      case Foundation.Native.Limiter.hit(:api, {:user, 42}) do
        {:allow, remaining} -> ...
        {:deny, retry_after_ms} -> ...
      end

  The functions are those of the Erlang module `:foundation_limiter`, whose documentation has algorithms, ranges, clocks and the
  policies of a full table. Misuse raises an `ArgumentError` that names the argument and the reason.
  """

  @doc """
  Makes a module of one's own with the function names and return shapes of Hammer: `use Foundation.Native.Limiter` in the place of
  `use Hammer, backend: :ets`. See `Foundation.Native.Limiter.Hammer`.
  """
  defmacro __using__(options) do
    quote do
      require Foundation.Native.Limiter.Hammer
      Foundation.Native.Limiter.Hammer.module(unquote(options))
    end
  end

  @type name :: atom
  @type limiter :: :foundation_limiter.limiter()
  @type key :: term
  @type answer ::
          {:allow, remaining :: non_neg_integer} | {:deny, retry_after_ms :: non_neg_integer}
  @typedoc "Only of a limiter that nodes share."
  @type unanswered :: {:error, :unreachable}
  @type option ::
          {:name, name}
          | {:algorithm, :gcra | :fixed_window | :sliding_window}
          | {:limit, non_neg_integer}
          | {:period, pos_integer}
          | {:burst, pos_integer}
          | {:capacity, pos_integer}
          | {:on_full, :evict | :deny | :allow}
          | {:clock, :auto | :precise | :coarse | :manual}
          | {:scope, :local | :cluster | :cluster_strict}
          | {:cluster_timeout, pos_integer}
          | {:telemetry, boolean}
          | {:persist, Path.t()}

  @doc """
  Starts the owner of a limiter. `:name` is required; the other options are those of `:foundation_limiter.start_link/2`.

      iex> {:ok, _} = Foundation.Native.Limiter.start_link(name: :doc_start, limit: 2, period: 1000, clock: :manual)
      iex> Foundation.Native.Limiter.start_link(name: :doc_other, limit: -1, period: 1000)
      {:error, {:badarg, {:limit, :out_of_range}}}
  """
  @spec start_link([option]) :: {:ok, pid} | {:error, term}
  def start_link(options) when is_list(options) do
    {name, rest} = Keyword.pop(options, :name, :undefined)
    start_link(name, rest)
  end

  @doc "As `start_link/1`, with the name apart; options as a keyword list or a map."
  @spec start_link(name, [option] | map) :: {:ok, pid} | {:error, term}
  def start_link(name, options), do: :foundation_limiter.start_link(name, Map.new(options))

  @doc "For a supervisor: `{Foundation.Native.Limiter, name: :api, ...}`. The owner is restarted after a crash, not after `delete/1`."
  @spec child_spec([option]) :: Supervisor.child_spec()
  def child_spec(options) when is_list(options) do
    {name, rest} = Keyword.pop(options, :name, :undefined)
    spec = :foundation_limiter.child_spec({name, Map.new(rest)})
    %{spec | id: {__MODULE__, name}, start: {__MODULE__, :start_link, [options]}}
  end

  @doc """
  One hit of cost 1 against the preset limit.

      iex> {:ok, _} = Foundation.Native.Limiter.start_link(name: :doc_hit, limit: 2, period: 1000, clock: :manual)
      iex> for _ <- 1..3, do: Foundation.Native.Limiter.hit(:doc_hit, "user:1")
      [{:allow, 1}, {:allow, 0}, {:deny, 500}]
  """
  @spec hit(limiter, key) :: answer
  defdelegate hit(limiter, key), to: :foundation_limiter

  @doc "A hit of the given cost: all of it is admitted, or nothing. Cost 0 answers like `peek/2`."
  @spec hit(limiter, key, cost :: non_neg_integer) :: answer
  defdelegate hit(limiter, key, cost), to: :foundation_limiter

  @doc "One hit of cost 1 against the limit given here, for `period` milliseconds."
  @spec hit(limiter, key, period :: pos_integer, limit :: non_neg_integer) :: answer
  defdelegate hit(limiter, key, period, limit), to: :foundation_limiter

  @doc "As `hit/4`, with a cost."
  @spec hit(
          limiter,
          key,
          period :: pos_integer,
          limit :: non_neg_integer,
          cost :: non_neg_integer
        ) :: answer
  defdelegate hit(limiter, key, period, limit, cost), to: :foundation_limiter

  @doc """
  What the key has left; changes nothing.

      iex> {:ok, _} = Foundation.Native.Limiter.start_link(name: :doc_peek, limit: 2, period: 1000, clock: :manual)
      iex> Foundation.Native.Limiter.peek(:doc_peek, "user:1")
      {:allow, 2}
  """
  @spec peek(limiter, key) :: answer
  defdelegate peek(limiter, key), to: :foundation_limiter

  @doc "As `peek/2`, for the limit given here."
  @spec peek(limiter, key, period :: pos_integer, limit :: non_neg_integer) :: answer
  defdelegate peek(limiter, key, period, limit), to: :foundation_limiter

  @doc """
  Hits several keys against their preset limits: all are admitted, or none is debited.

  `{:deny, index, retry_after_ms}` names the entry that is denied, counted from 1.

      iex> {:ok, _} = Foundation.Native.Limiter.start_link(name: :doc_user, limit: 3, period: 1000, clock: :manual)
      iex> {:ok, _} = Foundation.Native.Limiter.start_link(name: :doc_tokens, limit: 100, period: 60_000, clock: :manual)
      iex> Foundation.Native.Limiter.hit_all([{:doc_user, "u1", 1}, {:doc_tokens, "u1", 80}])
      {:allow, [2, 20]}
      iex> Foundation.Native.Limiter.hit_all([{:doc_user, "u1", 1}, {:doc_tokens, "u1", 80}])
      {:deny, 2, 36000}
      iex> Foundation.Native.Limiter.peek(:doc_user, "u1")
      {:allow, 2}
  """
  @spec hit_all([{limiter, key, cost :: non_neg_integer}]) ::
          {:allow, [remaining :: non_neg_integer]}
          | {:deny, index :: pos_integer, retry_after_ms :: non_neg_integer}
  defdelegate hit_all(entries), to: :foundation_limiter

  @doc """
  Takes budget now and tells how long to wait before it may be used; `:gcra` only. `refund/1` gives it back.

      iex> {:ok, _} = Foundation.Native.Limiter.start_link(name: :doc_reserve, limit: 1, period: 1000, clock: :manual)
      iex> {:ok, 0, _token} = Foundation.Native.Limiter.reserve(:doc_reserve, "job", 1, 5000)
      iex> {:ok, 1000, token} = Foundation.Native.Limiter.reserve(:doc_reserve, "job", 1, 5000)
      iex> Foundation.Native.Limiter.refund(token)
      :ok
      iex> Foundation.Native.Limiter.refund(token)
      {:error, :refunded}
      iex> Foundation.Native.Limiter.reserve(:doc_reserve, "job", 1, 500)
      {:deny, 500}
  """
  @spec reserve(limiter, key, cost :: non_neg_integer, max_wait :: non_neg_integer) ::
          {:ok, wait_ms :: non_neg_integer, :foundation_limiter.token()}
          | {:deny, retry_after_ms :: non_neg_integer}
  defdelegate reserve(limiter, key, cost, max_wait), to: :foundation_limiter

  @doc "Gives a reservation back; a token works once."
  @spec refund(:foundation_limiter.token()) :: :ok | {:error, :expired | :refunded}
  defdelegate refund(token), to: :foundation_limiter

  @doc "The units that the key has used of the preset limit."
  @spec get(limiter, key) :: non_neg_integer | unanswered
  defdelegate get(limiter, key), to: :foundation_limiter

  @doc "As `get/2`, for this period; with `:gcra` it is the preset one."
  @spec get(limiter, key, period :: pos_integer) :: non_neg_integer | unanswered
  defdelegate get(limiter, key, period), to: :foundation_limiter

  @doc """
  Counts `n` units under the preset period, whatever the limit says, and gives the new count.

      iex> {:ok, _} = Foundation.Native.Limiter.start_link(name: :doc_inc, limit: 5, period: 1000, clock: :manual)
      iex> {Foundation.Native.Limiter.inc(:doc_inc, "k", 4), Foundation.Native.Limiter.inc(:doc_inc, "k", 4)}
      {4, 8}
      iex> Foundation.Native.Limiter.hit(:doc_inc, "k")
      {:deny, 800}
      iex> {Foundation.Native.Limiter.set(:doc_inc, "k", 1000, 2), Foundation.Native.Limiter.get(:doc_inc, "k")}
      {2, 2}
  """
  @spec inc(limiter, key, n :: non_neg_integer) :: non_neg_integer | unanswered
  defdelegate inc(limiter, key, n), to: :foundation_limiter

  @doc "As `inc/3`, for this period; with `:gcra` it is the preset one."
  @spec inc(limiter, key, period :: pos_integer, n :: non_neg_integer) ::
          non_neg_integer | unanswered
  defdelegate inc(limiter, key, period, n), to: :foundation_limiter

  @doc "Sets the units that the key has used under this period."
  @spec set(limiter, key, period :: pos_integer, count :: non_neg_integer) ::
          non_neg_integer | unanswered
  defdelegate set(limiter, key, period, count), to: :foundation_limiter

  @doc "Gives the key its whole budget under the preset period back."
  @spec reset(limiter, key) :: :ok | unanswered
  defdelegate reset(limiter, key), to: :foundation_limiter

  @doc "Gives the key its whole budget under this period back."
  @spec reset(limiter, key, period :: pos_integer) :: :ok | unanswered
  defdelegate reset(limiter, key, period), to: :foundation_limiter

  @doc "Options and figures of the limiter; looks at every slot, on a dirty scheduler."
  @spec info(limiter) :: %{atom => term}
  defdelegate info(limiter), to: :foundation_limiter

  @doc "Deletes the limiter and stops its owner."
  @spec delete(limiter) :: :ok
  defdelegate delete(limiter), to: :foundation_limiter

  @doc "The handle of a limiter, or `nil`: it finds exactly this limiter, and nothing once it is deleted."
  @spec whereis(name) :: :foundation_limiter.handle() | nil
  def whereis(name) do
    case :foundation_limiter.whereis(name) do
      :undefined -> nil
      handle -> handle
    end
  end

  @doc """
  Moves a manual clock on.

      iex> {:ok, _} = Foundation.Native.Limiter.start_link(name: :doc_advance, limit: 1, period: 1000, clock: :manual)
      iex> {Foundation.Native.Limiter.hit(:doc_advance, 1), Foundation.Native.Limiter.hit(:doc_advance, 1)}
      {{:allow, 0}, {:deny, 1000}}
      iex> Foundation.Native.Limiter.advance(:doc_advance, 1000)
      iex> Foundation.Native.Limiter.hit(:doc_advance, 1)
      {:allow, 0}
  """
  @spec advance(limiter, ms :: non_neg_integer) :: :ok
  defdelegate advance(limiter, ms), to: :foundation_limiter
end
