//! What `infield doctor` looks at: everything the engine needs from a host, tried for real, each finding with its remedy.
