//! Generated gRPC stubs of every tool and their descriptor set. No logic.
//!
//! The source is `proto/`; `hack/dev proto` writes `src/gen`, and `hack/dev check` fails when the two differ.
//!
//! ```
//! let request = api::network::v1::CreateNetworkRequest { name: "blue".into(), ..Default::default() };
//! assert_eq!(request.name, "blue");
//! ```
#![allow(missing_docs, rustdoc::all)]

/// `FileDescriptorSet` of all services, for reflection and for telling breaking changes.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptor.bin");

macro_rules! package {
    ($name:ident, $file:literal) => {
#[rustfmt::skip]
        pub mod $name {
            pub mod v1 {
                include!(concat!("gen/", $file));
            }
        }
    };
}

package!(types, "pier.types.v1.rs");
package!(runtime, "pier.runtime.v1.rs");
package!(supervisor, "pier.supervisor.v1.rs");
package!(distribution, "pier.distribution.v1.rs");
package!(network, "pier.network.v1.rs");
package!(network_driver, "pier.network.driver.v1.rs");
package!(volume, "pier.volume.v1.rs");
package!(volume_driver, "pier.volume.driver.v1.rs");
package!(builder, "pier.builder.v1.rs");
package!(engine, "pier.engine.v1.rs");
