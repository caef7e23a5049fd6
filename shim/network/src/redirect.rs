//! The TAP beside the pod's interface, and the filters that carry every frame between the two (tc-mirred(8)).

use crate::{
    Interface, NetworkError,
    socket::RouteSocket,
    tap::{self, Tap},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    tc::{
        TcAction, TcActionAttribute, TcActionGeneric, TcActionMirrorOption, TcActionOption, TcActionType, TcAttribute, TcFilterU32Option,
        TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
    },
};
use std::{fs, io};

/// `ETH_P_ALL` in network order: filters of every frame.
const EVERY_PROTOCOL: u32 = 0x0003_u16.to_be() as u32;
/// Where the ingress queue of an interface hangs.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0 };

/// Makes the TAP and connects it, in the calling thread's namespace.
pub fn connect(interface: &Interface) -> Result<Tap, NetworkError> {
    let mut socket = open()?;
    take_back(&mut socket)?;
    let made = make(&mut socket, interface);
    if made.is_err() {
        // The first error is the one to report. The TAP is gone already.
        let _ = take_back(&mut socket);
    }
    made
}

/// Takes back what [`connect`] did.
pub fn disconnect() -> Result<(), NetworkError> {
    take_back(&mut open()?)
}

fn make(socket: &mut RouteSocket, interface: &Interface) -> Result<Tap, NetworkError> {
    let step = |step| move |e| NetworkError::Step(step, e);
    let tap = Tap::make()?;
    // The namespace's own stack would otherwise speak to the guest (router solicitations). /proc/sys/net is that of the thread; where
    // it cannot be written, or the kernel has no IPv6, the guest sees some frames more.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap::NAME), "1");
    let index = index_of(socket, tap::NAME)?.ok_or(NetworkError::Step("find the VM's TAP", io::ErrorKind::NotFound.into()))?;
    socket
        .change(RouteNetlinkMessage::SetLink(up(index, interface.mtu)))
        .map_err(step("set up the VM's TAP"))?;
    for (from, to) in [(interface.index, index), (index, interface.index)] {
        socket
            .create(RouteNetlinkMessage::NewQueueDiscipline(ingress(from)))
            .map_err(step("make an ingress queue (does the kernel have sch_ingress?)"))?;
        socket
            .create(RouteNetlinkMessage::NewTrafficFilter(redirect(from, to)))
            .map_err(step("redirect frames (does the kernel have cls_u32 and act_mirred?)"))?;
    }
    Ok(tap)
}

/// A TAP is gone with its VMM; the ingress queue of the pod's interface is not.
fn take_back(socket: &mut RouteSocket) -> Result<(), NetworkError> {
    let links = links(socket)?;
    for (index, _) in links.iter().filter(|(_, name)| name != tap::NAME) {
        match socket.change(RouteNetlinkMessage::DelQueueDiscipline(ingress(*index))) {
            Err(error) if !is_absent(&error) => return Err(NetworkError::Step("remove an ingress queue", error)),
            _ => {}
        }
    }
    Ok(())
}

/// There is no queue, as the kernel says in several ways.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV))
}

fn open() -> Result<RouteSocket, NetworkError> {
    RouteSocket::open().map_err(|e| NetworkError::Step("reach the kernel's routing tables", e))
}

/// Index and name of every interface that carries Ethernet frames.
fn links(socket: &mut RouteSocket) -> Result<Vec<(u32, String)>, NetworkError> {
    let links = socket.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let links = links.map_err(|e| NetworkError::Step("list the pod's interfaces", e))?;
    let of = |message| {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        if link.header.link_layer_type != LinkLayerType::Ether {
            return None;
        }
        let name = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        Some((link.header.index, name?))
    };
    Ok(links.into_iter().filter_map(of).collect())
}

fn index_of(socket: &mut RouteSocket, name: &str) -> Result<Option<u32>, NetworkError> {
    let found = links(socket)?.into_iter().find(|(_, other)| other == name);
    Ok(found.map(|(index, _)| index))
}

fn up(index: u32, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![LinkAttribute::Mtu(mtu)];
    message
}

fn ingress(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index as i32;
    message.header.handle = INGRESS;
    message.header.parent = TcHandle::INGRESS;
    message.attributes = vec![TcAttribute::Kind("ingress".to_owned())];
    message
}

/// One key without a mask matches every frame.
fn redirect(from: u32, to: u32) -> TcMessage {
    let mut generic = TcActionGeneric::default();
    generic.action = TcActionType::Stolen;
    let mut mirror = TcMirror::default();
    mirror.generic = generic;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.tab = 1;
    action.attributes = vec![
        TcActionAttribute::Kind("mirred".to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.keys = vec![TcU32Key::default()];
    selector.nkeys = 1;
    let mut message = TcMessage::default();
    message.header.index = from as i32;
    message.header.parent = INGRESS;
    // Priority 1 in the upper half.
    message.header.info = 1 << 16 | EVERY_PROTOCOL;
    message.attributes = vec![
        TcAttribute::Kind("u32".to_owned()),
        TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(selector)),
            TcOption::U32(TcFilterU32Option::Action(vec![action])),
        ]),
    ];
    message
}
