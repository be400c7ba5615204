//! Client of the lighthouse's API.
