//! Frames of the runner's socket and the agent's configuration: any bytes are an error or a value that survives a round trip.
#![no_main]

use infield_api::runner::{Frame, RunnerRequest, RunnerResponse};
use infield_api::sandbox::CreateSandbox;
use infield_api::toolbox::AgentConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame) = serde_json::from_slice::<Frame<RunnerRequest>>(data) {
        let text = serde_json::to_vec(&frame).expect("a request can be written");
        let again: Frame<RunnerRequest> = serde_json::from_slice(&text).expect("and read");
        assert_eq!(format!("{:?}", again.body), format!("{:?}", frame.body));
    }
    if let Ok(frame) = serde_json::from_slice::<Frame<RunnerResponse>>(data) {
        let text = serde_json::to_vec(&frame).expect("an answer can be written");
        let again: Frame<RunnerResponse> = serde_json::from_slice(&text).expect("and read");
        assert_eq!(format!("{:?}", again.body), format!("{:?}", frame.body));
    }
    let _ = serde_json::from_slice::<AgentConfig>(data);
    let _ = serde_json::from_slice::<CreateSandbox>(data);
});
