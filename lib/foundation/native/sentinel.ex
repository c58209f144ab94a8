defmodule Foundation.Native.Sentinel do
  @moduledoc """
  The sentinel: a C node that watches processes and nodes and rolls flag groups back, also when the BEAM is hung or dead. The Elixir
  face of the Erlang module `:foundation_sentinel`, whose documentation has every option and error.

      children = [{Foundation.Native.Sentinel, flags_file: "/var/lib/shop/flags"}]

      :ok =
        Foundation.Native.Sentinel.watch(:checkout,
          process: Shop.Checkout,
          group: :checkout,
          policy: [failures: {3, 10_000}]
        )

  The VM must be a distributed node. An orderly stop of the application says goodbye to the sentinel; the end of the VM without it
  counts as an outage of the node.
  """

  @type id :: term
  @type policy :: [
          failures: {pos_integer, pos_integer},
          down_after: non_neg_integer,
          probe: [every: pos_integer, timeout: pos_integer, misses: pos_integer],
          grace: non_neg_integer,
          cooldown: non_neg_integer,
          dry_run: boolean,
          abnormal_only: boolean
        ]
  @type watch_option ::
          {:process, atom | pid}
          | {:node, node}
          | {:group, atom | [atom]}
          | {:policy, policy | map}
  @type option ::
          {:flags_file, Path.t()}
          | {:node, node}
          | {:nodes, [node]}
          | {:linger, non_neg_integer}
          | {:config, Path.t()}
          | {:audit_file, Path.t()}

  @doc """
  Starts the sentinel as a port of this VM and waits until it is connected.

      iex> Foundation.Native.Sentinel.start_link(colour: :red)
      {:error, {:badarg, {:colour, :unknown}}}
  """
  @spec start_link([option] | map) :: {:ok, pid} | {:error, term}
  def start_link(options \\ []), do: :foundation_sentinel.start_link(Map.new(options))

  @doc "For a supervisor: `{Foundation.Native.Sentinel, options}`."
  @spec child_spec([option] | map) :: Supervisor.child_spec()
  def child_spec(options), do: :foundation_sentinel.child_spec(Map.new(options))

  @doc "The node name of this VM's sentinel."
  @spec sentinel_node() :: node
  defdelegate sentinel_node(), to: :foundation_sentinel

  @doc """
  Watches a process (by registered name or pid) or, without `:process`, a node. Setting the same watch again changes nothing.
  """
  @spec watch(id, [watch_option] | map) :: :ok | {:error, term}
  def watch(id, spec), do: :foundation_sentinel.watch(id, nested(spec))

  @doc "Removes a watch."
  @spec unwatch(id) :: :ok | {:error, term}
  defdelegate unwatch(id), to: :foundation_sentinel

  @doc "All watches, by id: what they are, their state and what they have counted."
  @spec watches() :: %{id => map} | {:error, term}
  defdelegate watches(), to: :foundation_sentinel

  @doc "How the sentinel is: version, OS process, nodes with their states, the flag file."
  @spec status() :: map | {:error, term}
  defdelegate status(), to: :foundation_sentinel

  @doc "Whether a sentinel answers this node."
  @spec running?() :: boolean
  def running?(), do: is_map_key(status_map(), :os_pid)

  @doc "Counters since the sentinel's start."
  @spec metrics() :: %{atom => non_neg_integer} | {:error, term}
  defdelegate metrics(), to: :foundation_sentinel

  @doc "Rolls a group back through the sentinel."
  @spec rollback(group :: atom, reason :: term) :: {:ok, epoch :: pos_integer} | {:error, term}
  defdelegate rollback(group, reason), to: :foundation_sentinel

  @doc "Lets the flags of a group be set again."
  @spec rearm(group :: atom, epoch :: non_neg_integer) :: :ok | {:error, term}
  defdelegate rearm(group, epoch), to: :foundation_sentinel

  @doc "The last decisions, oldest first; `limit:` asks for fewer."
  @spec events([limit: non_neg_integer] | map) :: [map] | {:error, term}
  def events(options \\ []), do: :foundation_sentinel.events(Map.new(options))

  @doc "Tells every connected sentinel that this node is going to stop."
  @spec bye() :: :ok
  defdelegate bye(), to: :foundation_sentinel

  defp status_map do
    case :foundation_sentinel.status() do
      %{} = status -> status
      {:error, _} -> %{}
    end
  end

  # Keyword lists at the places where the contract has maps; what is wrong with a value is for the sentinel to say.
  defp nested(options) do
    if Keyword.keyword?(options) or is_map(options) do
      Map.new(options, fn
        {key, [_ | _] = value} when key in [:policy, :probe] -> {key, nested(value)}
        {:policy, %{} = value} -> {:policy, nested(value)}
        other -> other
      end)
    else
      options
    end
  end
end
