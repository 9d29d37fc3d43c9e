//! Ctrl-C and SIGTERM: the step at hand is finished and its state saved.
//!
//! SIGTERM is what batch systems and containers send before they kill: Slurm at the time limit and on
//! `scontrol requeue`, `docker stop`, Kubernetes.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::SIGTERM;
use signal_hook::flag;

/// Exit code after Ctrl-C.
const INTERRUPTED: usize = 130;
/// Exit code after SIGTERM.
const TERMINATED: usize = 143;

/// The exit code that the last signal asks for; 0 when there was none.
static CODE: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// A flag that the first Ctrl-C or SIGTERM sets. A second Ctrl-C ends the program at once; SIGTERM never
/// does, since some batch systems send it twice.
///
/// # Errors
/// The system refuses a handler, or there is one already.
pub fn stop_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let code = CODE.get_or_init(Arc::default);
    let was_pressed = AtomicBool::new(false);
    let (flag_to_set, code_to_set) = (Arc::clone(&stop), Arc::clone(code));
    let handler = move || {
        if was_pressed.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED as i32);
        }
        code_to_set.store(INTERRUPTED, Ordering::Relaxed);
        flag_to_set.store(true, Ordering::Relaxed);
        eprintln!("stopping after this step; press Ctrl-C again to stop at once");
    };
    ctrlc::set_handler(handler).map_err(std::io::Error::other)?;
    flag::register_usize(SIGTERM, Arc::clone(code), TERMINATED)?;
    flag::register(SIGTERM, Arc::clone(&stop))?;
    Ok(stop)
}

/// The exit code of a program that ends with an error: 130 after Ctrl-C, 143 after SIGTERM, 1 otherwise.
pub fn failure() -> ExitCode {
    let code = CODE.get().map_or(0, |code| code.load(Ordering::Relaxed));
    match u8::try_from(code) {
        Ok(0) | Err(_) => ExitCode::FAILURE,
        Ok(code) => ExitCode::from(code),
    }
}
