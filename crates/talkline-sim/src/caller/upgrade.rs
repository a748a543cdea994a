//! The upgrade request, and a strict reading of its answer.
