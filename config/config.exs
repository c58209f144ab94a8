import Config

# The tests of this tree keep nothing in the user's data folder. Applications that depend on it do not read this file.
if config_env() == :test do
  config :foundation_native, data_dir: :ephemeral
end
