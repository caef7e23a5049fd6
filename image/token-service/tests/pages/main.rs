//! The pages as browsers meet them: with the keyboard alone, as pictures, and through forms that others wrote.

mod browser;
mod forms;
mod http;
mod keyboard;
mod pictures;
mod site;
