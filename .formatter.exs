[inputs: ["mix.exs", "lib/**/*.ex", "test/**/*.exs", "examples/**/*.{ex,exs}"]]
