defmodule Consumer.MixProject do
  use Mix.Project

  def project do
    [
      app: :consumer,
      version: "1.0.0",
      elixir: "~> 1.14",
      deps: [{:foundation_native, DEPENDENCY}],
      releases: [consumer: [include_erts: INCLUDE_ERTS]]
    ]
  end

  def application do
    [mod: {Consumer, []}, extra_applications: [:logger]]
  end
end
