package sdgrpc_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// halves are float16 values as they travel.
func halves(bits ...uint16) []byte {
	var data bytes.Buffer
	binary.Write(&data, binary.LittleEndian, bits)
	return data.Bytes()
}

const (
	zero, one, minusTwo, half, smallest = 0x0000, 0x3c00, 0xc000, 0x3800, 0x0001
	infinity, minusInfinity             = 0x7c00, 0xfc00
)

// Each pixel is the bias and the sum of its channels by the factors, from -1 (dark) to 1, and clamped.
func TestLatentPicture(t *testing.T) {
	latent := &pb.Latent{Channels: 2, Height: 1, Width: 3, Data: halves(
		zero, one, minusTwo,
		half, smallest, one,
	)}
	format := &pb.LatentFormat{
		Channels: 2, RgbFactors: []float32{1, 0, 0.5, 0, 1, 0}, RgbBias: []float32{0, 0, -1},
	}
	picture, err := sdgrpc.LatentPicture(latent, format)
	if err != nil {
		t.Fatal(err)
	}
	expected := []byte{128, 191, 0, 255, 255, 128, 64, 255, 0, 255, 0, 255}
	if !bytes.Equal(picture.Pix, expected) {
		t.Errorf("%v instead of %v", picture.Pix, expected)
	}
}

// Infinite values are the brightest and the darkest.
func TestLatentPictureOfInfinities(t *testing.T) {
	latent := &pb.Latent{Channels: 1, Height: 1, Width: 2, Data: halves(infinity, minusInfinity)}
	format := &pb.LatentFormat{Channels: 1, RgbFactors: []float32{1, 1, 1}, RgbBias: []float32{0, 0, 0}}
	picture, err := sdgrpc.LatentPicture(latent, format)
	if err != nil || picture.Pix[0] != 255 || picture.Pix[4] != 0 {
		t.Error(picture, err)
	}
}

// A latent of another size than its data, or than the factors are for, is an error.
func TestLatentPictureOfAnotherSize(t *testing.T) {
	format := &pb.LatentFormat{Channels: 1, RgbFactors: []float32{1, 1, 1}, RgbBias: []float32{0, 0, 0}}
	for _, latent := range []*pb.Latent{
		nil,
		{Channels: 1, Height: 1, Width: 2, Data: halves(one)},
		{Channels: 2, Height: 1, Width: 1, Data: halves(one, one)},
	} {
		if _, err := sdgrpc.LatentPicture(latent, format); err == nil {
			t.Errorf("%v was taken", latent)
		}
	}
}
