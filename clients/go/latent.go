package sdgrpc

import (
	"encoding/binary"
	"fmt"
	"image"
	"math"

	pb "example.com/sdgrpc/v1"
)

// LatentPicture decodes a latent to a small picture, one pixel per latent pixel, by its model's linear map
// (ListModels: Model.latent_format).
func LatentPicture(latent *pb.Latent, format *pb.LatentFormat) (*image.RGBA, error) {
	channels, height, width := int(latent.GetChannels()), int(latent.GetHeight()), int(latent.GetWidth())
	factors, bias, data := format.GetRgbFactors(), format.GetRgbBias(), latent.GetData()
	if len(factors) != 3*channels || len(bias) != 3 || len(data) != 2*channels*height*width {
		return nil, fmt.Errorf("%d factors, %d biases and %d bytes do not fit a latent of %dx%dx%d",
			len(factors), len(bias), len(data), channels, height, width)
	}
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	for pixel := range height * width {
		for colour := range 3 {
			value := bias[colour]
			for channel := range channels {
				at := 2 * (channel*height*width + pixel)
				value += float16(binary.LittleEndian.Uint16(data[at:])) * factors[3*channel+colour]
			}
			unit := min(max(value/2+0.5, 0), 1)
			picture.Pix[4*pixel+colour] = uint8(math.RoundToEven(float64(unit * 255)))
		}
		picture.Pix[4*pixel+3] = 255
	}
	return picture, nil
}

// float16 is the value of an IEEE 754 half.
func float16(bits uint16) float32 {
	sign, exponent, fraction := bits>>15, int(bits>>10&31), float64(bits&1023)
	value := math.Ldexp(1+fraction/1024, exponent-15)
	switch exponent {
	case 0:
		value = math.Ldexp(fraction/1024, -14)
	case 31:
		value = math.Inf(1)
		if fraction != 0 {
			value = math.NaN()
		}
	}
	if sign == 1 {
		value = -value
	}
	return float32(value)
}
