defmodule FoundationNative.MixProject do
  use Mix.Project

  # Name, version and description stand once, in the Erlang application's own file.
  {:ok, [{:application, app, props}]} =
    :file.consult(Path.join(__DIR__, "src/foundation_native.app.src"))

  @app app
  @props props

  def project do
    [
      app: @app,
      version: to_string(@props[:vsn]),
      description: to_string(@props[:description]),
      elixir: "~> 1.14",
      # rebar3 and Mix both own _build/test.
      build_path: "_build/mix",
      compilers: [:foundation_native | Mix.compilers()],
      erlc_options: [:debug_info],
      test_paths: ["test"],
      test_pattern: "*_test.exs",
      deps: [],
      package: [
        licenses: ["Apache-2.0"],
        files:
          ~w(lib src c_src c_node scripts Makefile mix.exs rebar.config README.md LICENSE CHANGELOG.md)
      ]
    ]
  end

  def application do
    [
      mod: @props[:mod],
      registered: @props[:registered],
      env: @props[:env],
      extra_applications: [:logger]
    ]
  end
end

defmodule Mix.Tasks.Compile.FoundationNative do
  @moduledoc false
  use Mix.Task.Compiler

  @root __DIR__

  @impl true
  def run(_args) do
    make =
      if match?({:unix, os} when os in [:freebsd, :openbsd, :netbsd, :dragonfly], :os.type()),
        do: "gmake",
        else: "make"

    case System.cmd(make, ["native"],
           cd: @root,
           env: env(),
           into: IO.stream(:stdio, :line),
           stderr_to_stdout: true
         ) do
      {_, 0} ->
        Mix.Project.build_structure()
        {:ok, []}

      {_, status} ->
        Mix.raise(
          "foundation_native: `#{make} native` failed with status #{status}; `scripts/setup build` installs what it needs"
        )
    end
  end

  @impl true
  def clean do
    System.cmd("make", ["clean-native"], cd: @root, env: env(), stderr_to_stdout: true)
    :ok
  end

  # The names elixir_make uses; BINDIR and its kin would mislead an `erl` started by make.
  defp env do
    root = List.to_string(:code.root_dir())
    erts = :erlang.system_info(:version) |> List.to_string()

    ei =
      case :code.lib_dir(:erl_interface) do
        {:error, _} -> Path.join(root, "usr")
        dir -> List.to_string(dir)
      end

    %{
      "MIX_APP_PATH" => Mix.Project.app_path(),
      "ERTS_INCLUDE_DIR" => Path.join([root, "erts-" <> erts, "include"]),
      "ERL_EI_INCLUDE_DIR" => Path.join(ei, "include"),
      "ERL_EI_LIBDIR" => Path.join(ei, "lib"),
      "BINDIR" => nil,
      "ROOTDIR" => nil,
      "PROGNAME" => nil,
      "EMU" => nil
    }
  end
end
