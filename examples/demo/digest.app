{application, digest, [
    {description, "Line counts and BLAKE2b digests of a folder, by agents that survive"},
    {vsn, "1.0.0"},
    {modules, [digest_app, digest_sup, digest_agent_sup, digest_coordinator, digest_agent, digest_job, digest_job_fast, digest_files]},
    {registered, [digest_sup, digest_agent_sup, digest_coordinator]},
    {applications, [kernel, stdlib, crypto, foundation_native]},
    {mod, {digest_app, []}}
]}.
