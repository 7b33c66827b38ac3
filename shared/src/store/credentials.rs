//! Who asks S3: found as the AWS SDK finds it for SQS, so that one answer to "where are my
//! credentials" holds for both. `object_store` by itself knows no profiles and not every
//! container's role.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_credential_types::provider::{
    ProvideCredentials, SharedCredentialsProvider, error::CredentialsError,
};
use object_store::{CredentialProvider, aws::AwsCredential};
use tokio::sync::{Mutex, OnceCell};

use crate::clock::{Clock, SystemClock};

/// New ones are asked for so long before the old ones expire, as the SDK does.
const EARLY: Duration = Duration::from_secs(10);

/// How long those hold that do not say when they expire, as the SDK has it: a file may change.
const WITHOUT_EXPIRY: Duration = Duration::from_secs(15 * 60);

/// The SDK's chain: environment, profile, web identity, container, instance.
#[derive(Debug, Default)]
pub(super) struct AwsChain {
    provider: OnceCell<Option<SharedCredentialsProvider>>,
    held: Mutex<Option<(Arc<AwsCredential>, SystemTime)>>,
}

#[async_trait]
impl CredentialProvider for AwsChain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let now = SystemTime::from(SystemClock.now());
        // Held while new ones are asked for, so that one request asks for all.
        let mut held = self.held.lock().await;
        if let Some((credential, until)) = held.as_ref().filter(|(_, until)| *until > now) {
            tracing::trace!(?until, "credentials still hold");
            return Ok(credential.clone());
        }
        let load =
            || async { aws_config::defaults(BehaviorVersion::latest()).load().await.credentials_provider() };
        let provider = self.provider.get_or_init(load).await;
        let found = match provider {
            Some(provider) => provider.provide_credentials().await,
            None => Err(CredentialsError::not_loaded_no_source()),
        };
        let found = found.map_err(refused)?;
        let until = found.expiry().map_or(now + WITHOUT_EXPIRY, |expiry| expiry - EARLY);
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        *held = Some((credential.clone(), until));
        Ok(credential)
    }
}

/// Whether trying again may help.
fn refused(error: CredentialsError) -> object_store::Error {
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            object_store::Error::Unauthenticated {
                path: "without credentials; docs/cloud-credentials.md says where they are looked for".into(),
                source: error.into(),
            }
        }
        // The instance's or the identity provider's service may be away for a moment.
        error => object_store::Error::Generic { store: "S3", source: error.into() },
    }
}
