defmodule Foundation.Native.Flags do
  @moduledoc """
  Feature flags in a memory-mapped file that processes of one host share; see the Erlang module `:foundation_flags`, of which this is
  the Elixir face.

      iex> alias Foundation.Native.Flags
      iex> :ok = Flags.declare(:new_checkout, group: :checkout)
      iex> :ok = Flags.set(:new_checkout, {:percentage, 25})
      iex> Flags.enabled_for?(:new_checkout, "user1") == :erlang.phash2({:new_checkout, "user1"}, 100) < 25
      true
      iex> {:ok, %{epochs: %{checkout: epoch}}} = Flags.rollback(:checkout, "error rate")
      iex> Flags.enabled_for?(:new_checkout, "user1")
      false
      iex> Flags.enable(:new_checkout)
      {:error, :rolled_back}
      iex> :ok = Flags.rearm(:checkout, epoch)
      iex> :ok = Flags.enable(:new_checkout)
      iex> Flags.enabled?(:new_checkout)
      true

  Misuse raises an `ArgumentError` that names the argument and what is wrong with it.
  """

  @type flag :: atom
  @type group :: atom
  @type value :: boolean | {:percentage, 0..100}
  @type set_error :: :unknown_flag | :rolled_back | :read_only | :faulted
  @type group_info :: %{
          epoch: pos_integer,
          state: :armed | :rolled_back,
          sticky: boolean,
          reason: binary | nil,
          at: integer | nil,
          who: binary | nil,
          flags: [flag]
        }

  @doc """
  Makes a flag known. Options: `:group` (default `:default`), `:default` (default `false`), `:sticky` (of the group: a rollback holds
  until a re-arm, default `true`), `:description`.
  """
  @spec declare(flag, keyword | map) ::
          :ok
          | {:error,
             :other_group
             | :full
             | :name_too_long
             | :busy
             | :read_only
             | :faulted
             | :closed
             | atom}
  def declare(flag, options \\ []), do: :foundation_flags.declare(flag, Map.new(options))

  @doc "Whether the flag is on. False for percentage flags, unknown flags, and after a rollback. About the cost of calling a NIF."
  @spec enabled?(flag) :: boolean
  defdelegate enabled?(flag), to: :foundation_flags, as: :enabled

  @doc "Whether the flag is on for this id; for a percentage exactly `:erlang.phash2({flag, id}, 100) < percent`."
  @spec enabled_for?(flag, id :: term) :: boolean
  defdelegate enabled_for?(flag, id), to: :foundation_flags, as: :enabled_for

  @doc "The value in force, or `nil` for an unknown flag."
  @spec get(flag) :: value | nil
  def get(flag), do: absent(:foundation_flags.get(flag))

  @doc "Sets a flag for every process that has the file mapped."
  @spec set(flag, value) :: :ok | {:error, set_error}
  defdelegate set(flag, value), to: :foundation_flags

  @doc "As `set/2`, and raises where it is refused."
  @spec set!(flag, value) :: :ok
  def set!(flag, value) do
    case set(flag, value) do
      :ok -> :ok
      {:error, reason} -> raise RuntimeError, "flag #{inspect(flag)} cannot be set: #{reason}"
    end
  end

  @doc "`set(flag, true)`."
  @spec enable(flag) :: :ok | {:error, set_error}
  defdelegate enable(flag), to: :foundation_flags

  @doc "`set(flag, false)`."
  @spec disable(flag) :: :ok | {:error, set_error}
  defdelegate disable(flag), to: :foundation_flags

  @doc "`set(flag, {:percentage, percent})`."
  @spec set_percentage(flag, 0..100) :: :ok | {:error, set_error}
  defdelegate set_percentage(flag, percent), to: :foundation_flags

  @doc "Every known flag with its value in force."
  @spec list() :: %{flag => value}
  defdelegate list(), to: :foundation_flags

  @doc "What is known of the file; see `:foundation_flags.info/0`."
  @spec info() :: map | {:error, :closed}
  defdelegate info(), to: :foundation_flags

  @doc "What is known of a flag, or `nil`; see `:foundation_flags.info/1`."
  @spec info(flag) :: map | nil | {:error, :faulted | :corrupt}
  def info(flag), do: absent(:foundation_flags.info(flag))

  @doc "Every group: epoch, state, flags, and who rolled it back, when and why."
  @spec groups() :: %{group => group_info}
  def groups,
    do:
      Map.new(:foundation_flags.groups(), fn {name, group} ->
        {name, Map.new(group, fn {k, v} -> {k, absent(v)} end)}
      end)

  @doc """
  Turns every flag of a group (or of `:all`) off, in every process at once, then waits up to `timeout` milliseconds until that is on
  disk; see `:foundation_flags.rollback/3`.
  """
  @spec rollback(group | :all, reason :: term, timeout) ::
          {:ok,
           %{
             epochs: %{group => pos_integer},
             flags: [flag],
             nodes: %{node => :ok | {:error, atom}}
           }}
          | {:error, :unknown_group | :read_only | :faulted | :closed}
  def rollback(group, reason, timeout \\ 5000),
    do: :foundation_flags.rollback(group, reason, timeout)

  @doc "Lets the flags of a rolled-back group be set again; they stay off until they are. Needs the group's current epoch."
  @spec rearm(group, epoch :: pos_integer) ::
          :ok | {:error, :stale_epoch | :not_rolled_back | :unknown_group | atom}
  defdelegate rearm(group, epoch), to: :foundation_flags

  @doc """
  Has `{:foundation_flags, :changed, flag, value}` and `{:foundation_flags, :rolled_back, group, epoch, reason}` sent to the caller.
  `{:error, :closed}` where the application does not run.
  """
  @spec subscribe() :: :ok | {:error, :closed}
  defdelegate subscribe(), to: :foundation_flags

  @doc "Ends the caller's subscription."
  @spec unsubscribe() :: :ok | {:error, :closed}
  defdelegate unsubscribe(), to: :foundation_flags

  defp absent(:undefined), do: nil
  defp absent(value), do: value
end
