//! Bodies of the in-sandbox toolbox API, shared by the agent that answers and the client that asks.
