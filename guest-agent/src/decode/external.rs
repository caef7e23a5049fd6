//! A process of the guest itself: what an operator's console requests.

use agent_protocol::{
    ExecExternalRequest,
    limits::{ARG_BYTES, ARGS, ENV_ENTRIES},
};
use container_document::{at_most, is_plain_path, refuse, texts};
use policy::action::ExecExternal;

use super::{DecodeError, StdioPlan, exec_id, stdio};

/// A process to start outside every container.
#[derive(Debug)]
pub struct ExternalOrder {
    pub exec_id: String,
    pub action: ExecExternal,
    pub stdio: StdioPlan,
}

impl TryFrom<ExecExternalRequest> for ExternalOrder {
    type Error = DecodeError;

    fn try_from(request: ExecExternalRequest) -> Result<Self, DecodeError> {
        if request.args.is_empty() {
            refuse("args", "there are none")?;
        }
        at_most("args", request.args.len(), ARGS)?;
        texts("args", &request.args, ARG_BYTES)?;
        at_most("env", request.env.len(), ENV_ENTRIES)?;
        texts("env", &request.env, ARG_BYTES)?;
        // An empty name would make the entry a different one once it is set.
        if request.env.iter().any(|entry| entry.find('=').is_none_or(|at| at == 0)) {
            refuse("env", "an entry is not NAME=value")?;
        }
        if !is_plain_path(&request.working_dir) {
            refuse("working_dir", "it is not a plain absolute path")?;
        }
        Ok(Self {
            exec_id: exec_id(&request.exec_id)?,
            stdio: stdio(request.stdio.as_ref())?,
            action: ExecExternal {
                arg_list: request.args,
                env_list: request.env,
                working_dir: request.working_dir,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ExecExternalRequest {
        ExecExternalRequest {
            exec_id: "console".to_owned(),
            args: vec!["/init".to_owned(), "show".to_owned()],
            env: vec!["A=1=2".to_owned()],
            working_dir: "/".to_owned(),
            ..Default::default()
        }
    }

    fn refused(change: impl FnOnce(&mut ExecExternalRequest)) -> bool {
        let mut request = request();
        change(&mut request);
        ExternalOrder::try_from(request).is_err()
    }

    #[test]
    fn the_judged_process_is_the_requested_one() {
        let order = ExternalOrder::try_from(request()).unwrap();
        assert_eq!(order.action.arg_list, ["/init", "show"]);
        assert_eq!(order.action.env_list, ["A=1=2"]);
        assert_eq!(order.exec_id, "console");
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        assert!(refused(|request| request.args.clear()));
        assert!(refused(|request| request.args.push("a\0b".to_owned())));
        assert!(refused(|request| request.args = vec![String::new(); ARGS + 1]));
        assert!(refused(|request| request.env.push("NAME".to_owned())));
        assert!(refused(|request| request.env.push("=value".to_owned())));
        assert!(refused(|request| request.working_dir = "/a/../b".to_owned()));
        assert!(refused(|request| request.working_dir.clear()));
        assert!(refused(|request| request.exec_id.clear()));
    }
}
