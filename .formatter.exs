[inputs: ["mix.exs", "config/*.exs", "lib/**/*.ex", "test/**/*.exs", "examples/**/*.{ex,exs}"]]
