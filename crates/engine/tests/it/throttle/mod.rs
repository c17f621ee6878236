//! Each signal crossed on a real server: the run enters the hold, says why, and leaves it; and nothing is lost.

mod added;
mod builtin;
mod company;
mod stage;
mod standby;
mod tuned;
mod web;
mod wraparound;
