package agent

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
	"time"
)

// Names of the images that every node has, so that pods start without a
// registry.
const (
	PauseImage = "holdfast.test/pause:1"
	PodImage   = "holdfast.test/pod:1"
)

type obj = map[string]any

// BuiltinImages is an OCI archive with both images, made of one static program.
// The same program gives the same bytes.
func BuiltinImages(program []byte) ([]byte, error) {
	blobs := map[string][]byte{}
	var order []string
	put := func(b []byte) (string, int) {
		sum := sha256.Sum256(b)
		digest := hex.EncodeToString(sum[:])
		if _, there := blobs[digest]; !there {
			order = append(order, digest)
			blobs[digest] = b
		}
		return "sha256:" + digest, len(b)
	}
	layer, err := tarOf([]tarFile{{"pause", program, 0o755, ""}, {"pod", nil, 0o755, "pause"}})
	if err != nil {
		return nil, err
	}
	layerDigest, layerSize := put(layer)
	var manifests []obj
	for _, image := range []struct{ name, entry string }{{PauseImage, "/pause"}, {PodImage, "/pod"}} {
		config, err := json.Marshal(obj{
			"architecture": runtime.GOARCH, "os": "linux",
			"config": obj{"Entrypoint": []string{image.entry}, "WorkingDir": "/"},
			"rootfs": obj{"type": "layers", "diff_ids": []string{layerDigest}},
		})
		if err != nil {
			return nil, err
		}
		configDigest, configSize := put(config)
		manifest, err := json.Marshal(obj{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": obj{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": configDigest, "size": configSize},
			"layers": []obj{{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layerDigest, "size": layerSize}},
		})
		if err != nil {
			return nil, err
		}
		digest, size := put(manifest)
		manifests = append(manifests, obj{
			"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
			"platform":    obj{"architecture": runtime.GOARCH, "os": "linux"},
			"annotations": obj{"io.containerd.image.name": image.name},
		})
	}
	index, err := json.Marshal(obj{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests})
	if err != nil {
		return nil, err
	}
	files := []tarFile{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644, ""}, {"index.json", index, 0o644, ""}}
	for _, digest := range order {
		files = append(files, tarFile{"blobs/sha256/" + digest, blobs[digest], 0o644, ""})
	}
	return tarOf(files)
}

type tarFile struct {
	name string
	body []byte
	mode int64
	// link makes the entry a hard link to an earlier one.
	link string
}

func tarOf(files []tarFile) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeLink, f.link
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return b.Bytes(), w.Close()
}
