//! What a real private registry says of images.

use super::*;
use crate::engine::live_registry::{PASSWORD, Registry};

#[tokio::test]
async fn a_registry_says_what_an_image_needs() {
    let registry = Registry::start().await;
    registry.push_with("cuda", "--change 'ENV NVIDIA_REQUIRE_CUDA=cuda>=12.4'");
    registry.push_with("arm", "--platform linux/arm64");
    registry.push_index("both", &[("cuda", "amd64"), ("arm", "arm64")]).await;
    let ask = async |tag: &str, arch, password: &str| {
        let image = Reference::parse(&registry.image(tag)).expect("valid");
        registry::ask(&image, arch, Some(registry.with_password(password))).await
    };
    let said = ask("cuda", Arch::Amd64, PASSWORD).await.expect("it says");
    assert_eq!(said.archs, [Arch::HOST]);
    assert!(said.env.contains(&("NVIDIA_REQUIRE_CUDA".into(), "cuda>=12.4".into())), "{said:?}");
    let said = ask("both", Arch::Arm64, PASSWORD).await.expect("it says");
    assert_eq!(
        (said.archs.len(), said.env.iter().any(|(name, _)| name == "NVIDIA_REQUIRE_CUDA")),
        (2, false)
    );
    let refused = ask("cuda", Arch::Amd64, "wrong").await.expect_err("refused");
    assert!(!refused.contains("wrong"), "{refused}");
    assert!(said.env.iter().all(|(name, _)| name.starts_with("NVIDIA_")), "the rest is nobody's business");
    ask("none", Arch::Amd64, PASSWORD).await.expect_err("there is none");
    let image = Reference::parse(&registry.image("cuda")).expect("valid");
    let asked = registry::ask(&image, Arch::Amd64, Some(registry.without_helper()));
    let refused = asked.await.expect_err("refused");
    let why = "the registry refuses the credential; the credential for";
    assert!(refused.starts_with(why) && refused.contains("is not on PATH"), "{refused}");
}
