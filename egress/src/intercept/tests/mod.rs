mod authority;
mod http;
mod limits;
mod secrets;
mod speed;
mod streams;
mod support;
