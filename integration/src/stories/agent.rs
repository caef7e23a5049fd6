//! The agent serves nothing before the one policy whose digest is the host data.

use crate::{
    lab::{Lab, Set, vm::Vm},
    stories::story::{Machines, OURS, Story},
};
use agent_protocol::{ListProcessesRequest, MountScratchRequest, SetPolicyRequest};
use anyhow::{Context, Result, ensure};
use ttrpc::Code;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "wrong-policy",
        about: "a policy whose digest is not the host data is refused",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: wrong_policy,
    },
    Story {
        name: "policy-first",
        about: "the agent serves nothing before SetPolicy, and takes it once",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: policy_first,
    },
];

const OTHER_POLICY: &str = "package policy\napi_version := \"0.12.0\"\n";

fn open_door() -> SetPolicyRequest {
    SetPolicyRequest {
        policy: agent_protocol::OPEN_DOOR.into(),
        ..Default::default()
    }
}

/// The code of a call that must fail.
fn refused<T>(what: &str, result: ttrpc::Result<T>) -> Result<Code> {
    match result {
        Ok(_) => anyhow::bail!("{what} succeeded"),
        Err(ttrpc::Error::RpcStatus(status)) => {
            println!("  {what}: {:?}: {}", status.code(), status.message());
            Ok(status.code())
        }
        Err(other) => Err(other).with_context(|| format!("{what}: no answer")),
    }
}

fn wrong_policy(lab: &Lab) -> Result<()> {
    let vm = Vm::boot("wrong-policy", agent_protocol::OPEN_DOOR.as_ref())?;
    vm.with_agent(async |agent, context| {
        let other = SetPolicyRequest {
            policy: OTHER_POLICY.into(),
            ..Default::default()
        };
        let code = refused("a policy with another digest", agent.set_policy(context(), &other).await)?;
        ensure!(code == Code::PERMISSION_DENIED, "a wrong policy must be PERMISSION_DENIED");
        let scratch = MountScratchRequest {
            sandbox_id: "x".to_owned(),
            encrypted: true,
            ..Default::default()
        };
        let code = refused("a call after a wrong policy", agent.mount_scratch(context(), &scratch).await)?;
        ensure!(code == Code::FAILED_PRECONDITION, "nothing may be served after a wrong policy");
        Ok(())
    })?;
    vm.stop()?;
    lab.nothing_is_left()
}

fn policy_first(lab: &Lab) -> Result<()> {
    let vm = Vm::boot("policy-first", agent_protocol::OPEN_DOOR.as_ref())?;
    vm.with_agent(async |agent, context| {
        let list = ListProcessesRequest {
            container_id: "nobody".to_owned(),
            ..Default::default()
        };
        let code = refused("a call before SetPolicy", agent.list_processes(context(), &list).await)?;
        ensure!(code == Code::FAILED_PRECONDITION, "nothing may be served before SetPolicy");
        let answer = agent
            .set_policy(context(), &open_door())
            .await
            .context("the right policy was refused")?;
        ensure!(
            answer.digest == crate::lab::digest(agent_protocol::OPEN_DOOR.as_ref()),
            "the agent reports another digest"
        );
        let code = refused(
            "a call after SetPolicy, for a container that does not exist",
            agent.list_processes(context(), &list).await,
        )?;
        ensure!(code == Code::NOT_FOUND, "the call must be served after SetPolicy");
        let code = refused("a second SetPolicy", agent.set_policy(context(), &open_door()).await)?;
        ensure!(code == Code::FAILED_PRECONDITION, "the policy can be set once");
        Ok(())
    })?;
    vm.stop()?;
    lab.nothing_is_left()
}
