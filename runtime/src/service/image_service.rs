//! `runtime.v1.ImageService`.

use super::runtime_service::{Chunks, chunks};
use crate::sim_runtime::SimRuntime;
use crate::stats;
use crate::{Error, Result};
use async_trait::async_trait;
use minik8s_cri::proto::image_service_server::ImageService;
use minik8s_cri::proto::*;
use tonic::{Request, Response, Status};

impl SimRuntime {
    fn images_of(&self, filter: Option<ImageFilter>) -> Vec<Image> {
        let wanted = filter.and_then(|filter| filter.image).map(|image| image.image).filter(|name| !name.is_empty());
        match wanted {
            Some(name) => self.images.get(&name).iter().map(|image| image.to_cri()).collect(),
            None => self.images.list().iter().map(|image| image.to_cri()).collect(),
        }
    }
}

fn name(image: Option<ImageSpec>) -> Result<String> {
    image.map(|image| image.image).ok_or_else(|| Error::InvalidRequest("image must be specified".to_string()))
}

#[async_trait]
impl ImageService for SimRuntime {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        self.check_power()?;
        Ok(Response::new(ListImagesResponse { images: self.images_of(request.into_inner().filter) }))
    }

    type StreamImagesStream = Chunks<StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Chunks<StreamImagesResponse>>, Status> {
        self.check_power()?;
        let images = self.images_of(request.into_inner().filter);
        Ok(chunks(images, |images| StreamImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        self.check_power()?;
        let image = self.images.get(&name(request.into_inner().image)?).map(|image| image.to_cri());
        Ok(Response::new(ImageStatusResponse { image, info: Default::default() }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        self.check_power()?;
        let name = name(request.into_inner().image)?;
        let image_ref = tokio::select! {
            biased;
            () = self.powered_off.cancelled() => return Err(Error::Stopped(self.node_name.clone()).into()),
            pulled = self.images.pull(&name) => pulled?,
        };
        Ok(Response::new(PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.check_power()?;
        self.images.remove(&name(request.into_inner().image)?);
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        self.check_power()?;
        let written = self.containers().iter().map(|container| container.world.fs.written_bytes()).sum();
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![stats::filesystem(self, self.images.used_bytes())],
            container_filesystems: vec![stats::filesystem(self, written)],
        }))
    }
}
