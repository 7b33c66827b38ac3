//! Whose machine this is, by what its firmware says (System Management BIOS, DMTF DSP0134).

use std::path::Path;

use super::Provider;

/// Where the kernel shows it.
pub const DMI: &str = "/sys/class/dmi/id";

/// What all of Azure's machines carry.
const AZURE: &str = "7783-7084-3265-9085-8269-3286-77";

/// The cloud; none that is known otherwise.
pub fn provider(dmi: &Path) -> Option<Provider> {
    let says = |name: &str, text: &str| {
        std::fs::read_to_string(dmi.join(name)).is_ok_and(|found| found.trim().contains(text))
    };
    if says("sys_vendor", "Amazon EC2") || says("bios_vendor", "Amazon EC2") || says("bios_version", "amazon")
    {
        Some(Provider::Aws)
    } else if says("product_name", "Google Compute Engine") {
        Some(Provider::Gcp)
    } else if says("chassis_asset_tag", AZURE) {
        Some(Provider::Azure)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("sys_vendor", "Amazon EC2\n", Some(Provider::Aws))]
    // A machine of an older kind, on Xen.
    #[case("bios_version", "4.11.amazon\n", Some(Provider::Aws))]
    #[case("product_name", "Google Compute Engine\n", Some(Provider::Gcp))]
    #[case("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n", Some(Provider::Azure))]
    #[case("sys_vendor", "Microsoft Corporation\n", None)]
    #[case("sys_vendor", "QEMU\n", None)]
    fn a_cloud_is_known_by_its_firmware(
        #[case] file: &str,
        #[case] text: &str,
        #[case] expected: Option<Provider>,
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(provider(dir.path()), None);
        std::fs::write(dir.path().join(file), text).expect("written");
        assert_eq!(provider(dir.path()), expected);
    }
}
