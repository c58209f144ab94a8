defmodule Foundation.Native.Snapshot do
  @moduledoc """
  A table of terms that survives the VM: what was acknowledged is there after `kill -9`; in `:sync` mode also after a power loss.

      {:ok, store} = Foundation.Native.Snapshot.open(:agents, path: "/var/lib/app/agents")
      {:ok, saved} = Foundation.Native.Snapshot.save(store, {:task_agent, 7}, state)
      # ... kill -9, start again, open again ...
      {:ok, saved} = Foundation.Native.Snapshot.load(store, {:task_agent, 7})
      state = Foundation.Native.Snapshot.value(saved)

  The functions are those of the Erlang module `:foundation_snapshot`, whose documentation has what each mode promises and every error.
  Misuse raises `ArgumentError`, which names the argument and the reason. Every function takes the store or its name.
  """

  @type name :: atom
  @type store :: :foundation_snapshot.store()
  @type key :: term
  @type saved :: :foundation_snapshot.saved()
  @type version :: non_neg_integer
  @type option ::
          {:path, Path.t()}
          | {:durability, :async | :sync | {:interval, pos_integer}}
          | {:segment_bytes, pos_integer}
          | {:max_bytes, pos_integer}
  @type operation ::
          {:put, key, term}
          | {:update, key, saved, term}
          | {:delete, key}
          | {:expect, key, version | :absent}
  @type write_error :: {:error, :foundation_snapshot.write_error()}
  @type conflict :: {:error, {:conflict, version | :absent}}

  @doc "Opens a store that the application owns; a store that is open under this name and path is returned as it is."
  @spec open(name, [option] | map) :: {:ok, store} | {:error, :foundation_snapshot.open_error()}
  def open(name, options \\ []), do: :foundation_snapshot.open(name, Map.new(options))

  @doc "Starts the owner of a store in one's own supervision tree. `:name` is required; the other options are those of `open/2`."
  @spec start_link([{:name, name} | option]) :: {:ok, pid} | {:error, term}
  def start_link(options) when is_list(options) do
    {name, rest} = Keyword.pop(options, :name)
    start_link(name, rest)
  end

  @doc "As `start_link/1`, with the name apart; options as a keyword list or a map."
  @spec start_link(name, [option] | map) :: {:ok, pid} | {:error, term}
  def start_link(name, options), do: :foundation_snapshot.start_link(name, Map.new(options))

  @doc "For a supervisor: `{Foundation.Native.Snapshot, name: :agents, path: path}`. Restarted after a crash, not after `close/1`."
  @spec child_spec([{:name, name} | option]) :: Supervisor.child_spec()
  def child_spec(options) when is_list(options) do
    {name, rest} = Keyword.pop(options, :name)
    spec = :foundation_snapshot.child_spec({name, Map.new(rest)})
    %{spec | id: {__MODULE__, name}, start: {__MODULE__, :start_link, [options]}}
  end

  @doc "Flushes and closes the store."
  @spec close(store) :: :ok | {:error, atom}
  defdelegate close(store), to: :foundation_snapshot

  @doc "The open store of this name, or `nil`."
  @spec whereis(name) :: store | nil
  def whereis(name) do
    case :foundation_snapshot.whereis(name) do
      :undefined -> nil
      store -> store
    end
  end

  @doc "Sizes, counts, versions, mode, and whether the store is read-only."
  @spec info(store) :: map
  defdelegate info(store), to: :foundation_snapshot

  @doc "Returns when everything written so far is on disk."
  @spec sync(store) :: :ok | write_error
  defdelegate sync(store), to: :foundation_snapshot

  @doc "Stores a value under a key, whatever was there."
  @spec save(store, key, term) :: {:ok, saved} | write_error
  defdelegate save(store, key, value), to: :foundation_snapshot

  @doc "As `save/3`; raises on an error."
  @spec save!(store, key, term) :: saved
  def save!(store, key, value) do
    case :foundation_snapshot.save(store, key, value) do
      {:ok, saved} -> saved
      {:error, reason} -> raise ErlangError, original: {:foundation_snapshot, reason}
    end
  end

  @doc "The value of a key with its version."
  @spec load(store, key) :: {:ok, saved} | {:error, :not_found | atom}
  defdelegate load(store, key), to: :foundation_snapshot

  @doc "Replaces the value that `saved` stands for; a conflict where the store holds another version by now."
  @spec update(store, key, saved, term) :: {:ok, saved} | conflict | write_error
  defdelegate update(store, key, saved, new), to: :foundation_snapshot

  @doc "As `update/4`; with `stale: :overwrite` a conflict is overwritten."
  @spec update(store, key, saved, term, stale: :overwrite | :error) ::
          {:ok, saved} | conflict | write_error
  def update(store, key, saved, new, options),
    do: :foundation_snapshot.update(store, key, saved, new, Map.new(options))

  @doc "Several operations as one: all of them happen or none. The answer has the `saved` of the puts and updates, in order."
  @spec commit(store, [operation]) :: {:ok, [saved]} | {:error, {:conflict, key}} | write_error
  defdelegate commit(store, operations), to: :foundation_snapshot

  @doc "The value that was saved or loaded."
  @spec value(saved) :: term
  defdelegate value(saved), to: :foundation_snapshot

  @doc "The version of the key's last write; it grows over the whole store."
  @spec version(saved) :: version
  defdelegate version(saved), to: :foundation_snapshot

  @doc "Inserts a tuple, or all tuples of a list in one atomic write. The first element is the key."
  @spec insert(store, tuple | [tuple]) :: true | write_error
  defdelegate insert(store, objects), to: :foundation_snapshot

  @doc "The object of a key as a list of one, or the empty list."
  @spec lookup(store, key) :: [tuple] | {:error, atom}
  defdelegate lookup(store, key), to: :foundation_snapshot

  @doc "Whether the key is there."
  @spec member?(store, key) :: boolean
  def member?(store, key), do: :foundation_snapshot.member(store, key)

  @doc "Deletes a key, if it is there."
  @spec delete(store, key) :: true | write_error
  defdelegate delete(store, key), to: :foundation_snapshot

  @doc "All objects, in no order."
  @spec tab2list(store) :: [tuple]
  defdelegate tab2list(store), to: :foundation_snapshot

  @doc "Folds over all objects, in no order."
  @spec foldl(store, acc, (tuple, acc -> acc)) :: acc when acc: var
  def foldl(store, acc, fun) when is_function(fun, 2),
    do: :foundation_snapshot.foldl(fun, acc, store)
end
